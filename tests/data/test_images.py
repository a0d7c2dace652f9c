import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.data import open_image
from lab.data.images import decode, square
from lab.errors import LabError


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", ["p.png", "p.bmp", "p.tif", "p.ppm", "p.webp"])
def test_lossless_formats_come_back_unchanged(tmp_path: Path, picture: Image.Image, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    assert np.array_equal(values(open_image(save(tmp_path / name, picture, **options))), values(picture))


def test_jpeg_comes_back_nearly_unchanged(tmp_path: Path, picture: Image.Image) -> None:
    opened = open_image(save(tmp_path / "p.jpg", picture, quality=95))
    assert opened.mode == "RGB"
    assert np.abs(values(opened) - values(picture)).max() < 12


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path, picture: Image.Image) -> None:
    opened = open_image(save(tmp_path / "p.jpg", picture.convert("CMYK"), quality=95))
    assert opened.mode == "RGB"
    assert np.abs(values(opened) - values(picture)).mean() < 4


def test_palette_and_greyscale(tmp_path: Path, picture: Image.Image) -> None:
    palette = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    opened = open_image(save(tmp_path / "p.png", palette))
    assert np.array_equal(values(opened), values(palette.convert("RGB")))
    grey = picture.convert("L")
    assert np.array_equal(values(open_image(save(tmp_path / "g.png", grey)))[..., 1], values(grey))
    assert values(open_image(save(tmp_path / "b.png", grey.convert("1")))).max() == 255


@pytest.mark.parametrize("name", ["p.png", "p.tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    deep = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)
    opened = values(open_image(save(tmp_path / name, Image.fromarray(deep))))
    assert np.array_equal(opened[..., 0], np.rint(deep / 257).astype(int))


def test_floats_from_0_to_1_are_scaled_and_others_refused(tmp_path: Path) -> None:
    unit = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    opened = open_image(save(tmp_path / "p.tif", Image.fromarray(unit)))
    assert values(opened)[..., 0].ravel().tolist() == list(range(256))
    with pytest.raises(LabError, match=r"wide\.tif: .*outside 0 to 1"):
        open_image(save(tmp_path / "wide.tif", Image.fromarray(unit * 300)))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 2, 4))
    opened = values(open_image(save(tmp_path / "p.png", clear.convert(mode))))
    assert (opened[:, :2] == 0).all()
    assert (opened[:, 2:] == 255).all()


def test_transparent_palette_entry_is_laid_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    opened = open_image(save(tmp_path / "p.png", palette, transparency=0))
    assert (values(opened) == 255).all()


def test_exif_orientation_turns_the_picture_upright(tmp_path: Path, picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    stored = picture.transpose(Image.Transpose.ROTATE_90)
    opened = open_image(save(tmp_path / "p.jpg", stored, quality=95, exif=exif))
    assert opened.size == picture.size
    assert np.abs(values(opened) - values(picture)).max() < 12


def test_large_jpeg_is_decoded_small_but_not_too_small(tmp_path: Path, picture: Image.Image) -> None:
    path = save(tmp_path / "p.jpg", picture.resize((1600, 1200)), quality=95)
    assert open_image(path).size == (1600, 1200)
    assert open_image(path, min_side=64).size == (200, 150)
    assert open_image(path, min_side=500).size == (1600, 1200)


def test_square_is_the_middle(tmp_path: Path, picture: Image.Image) -> None:
    made = square(save(tmp_path / "p.png", picture), 15)
    assert made.shape == (15, 15, 3)
    assert made.dtype == np.uint8
    assert abs(int(made[7, 7, 0]) - 127) <= 4  # the middle column
    assert abs(int(made[7, 0, 0]) - 255 * 5.5 / 39) <= 4  # five columns are cut off at each side
    assert abs(int(made[0, 7, 1]) - 255 * 0.5 / 29) <= 4  # no row is


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_tiny_and_thin_pictures_are_enlarged(tmp_path: Path, size: tuple[int, int]) -> None:
    made = square(save(tmp_path / "p.png", Image.new("RGB", size, (1, 2, 3))), 16)
    assert made.shape == (16, 16, 3)
    assert (made == (1, 2, 3)).all()


def bad_files(folder: Path, picture: Image.Image) -> dict[str, bytes]:
    buffers = {kind: io.BytesIO() for kind in ("jpeg", "png", "gif")}
    for kind, buffer in buffers.items():
        picture.save(buffer, kind)
    return {
        "empty.jpg": b"",
        "text.jpg": b"no picture at all",
        "half.jpg": buffers["jpeg"].getvalue()[:400],
        "half.png": buffers["png"].getvalue()[:60],
        "half.gif": buffers["gif"].getvalue()[:30],
        "noise.png": buffers["png"].getvalue()[:40] + bytes(range(200)),
    }


def test_bad_files_are_named_in_one_line(tmp_path: Path, picture: Image.Image) -> None:
    for name, content in bad_files(tmp_path, picture).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LabError) as caught:
            open_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "replace or remove the file" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(LabError, match=r"empty\.jpg: an empty file"):
        open_image(tmp_path / "empty.jpg")
    with pytest.raises(LabError, match=r"text\.jpg: not an image"):
        open_image(tmp_path / "text.jpg")
    with pytest.raises(LabError, match=r"missing\.jpg: no such file"):
        open_image(tmp_path / "missing.jpg")


@pytest.mark.parametrize("workers", [1, 4])
def test_decode_keeps_the_order_and_puts_errors_in_place(tmp_path: Path, workers: int) -> None:
    paths = [save(tmp_path / f"{i}.png", Image.new("RGB", (9, 9), (i, 0, 0))) for i in range(20)]
    paths[5].write_bytes(b"")
    rows = list(decode(paths, 4, workers))
    assert isinstance(rows[5], LabError)
    assert [int(row[0, 0, 0]) for i, row in enumerate(rows) if i != 5] == [i for i in range(20) if i != 5]
