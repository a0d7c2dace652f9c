"""The facts survive in the picture and beside it; files appear whole or not at all."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lab.errors import LabError
from lab.render import read_provenance, save_image, write_sidecar

FACTS = {"prompt": 'a "red" fleur – 花', "seed": 7, "guidance": [-5.0, 0.0, 1.5], "model": {"step": 20000}}
PICTURE = Image.new("RGB", (8, 6), (10, 200, 30))


def test_facts_and_pixels_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "sheet.png"
    save_image(PICTURE, path, FACTS)
    assert read_provenance(path) == FACTS
    assert Image.open(path).tobytes() == PICTURE.tobytes()
    assert json.loads((tmp_path / "deep" / "sheet.png.json").read_text(encoding="utf-8")) == FACTS
    assert sorted(file.name for file in path.parent.iterdir()) == ["sheet.png", "sheet.png.json"]


def test_the_picture_alone_carries_its_facts(tmp_path: Path) -> None:
    save_image(PICTURE, tmp_path / "sheet.png", FACTS)
    (tmp_path / "sheet.png.json").unlink()
    assert read_provenance(tmp_path / "sheet.png") == FACTS


def test_the_sidecar_speaks_for_a_stripped_picture_and_for_any_other_file(tmp_path: Path) -> None:
    save_image(PICTURE, tmp_path / "sheet.png", FACTS)
    PICTURE.save(tmp_path / "sheet.png")
    assert read_provenance(tmp_path / "sheet.png") == FACTS
    (tmp_path / "sweep.mp4").write_bytes(b"not a picture")
    write_sidecar(tmp_path / "sweep.mp4", {"seed": 3})
    assert read_provenance(tmp_path / "sweep.mp4") == {"seed": 3}


def test_values_of_numpy_torch_and_paths_become_plain(tmp_path: Path) -> None:
    facts = {
        "scale": torch.tensor([1.0, 2.0]),
        "n": np.int64(3),
        "curve": np.ones(2),
        "run": Path("results/a"),
    }
    plain = {"scale": [1.0, 2.0], "n": 3, "curve": [1.0, 1.0], "run": "results/a"}
    save_image(PICTURE, tmp_path / "a.png", facts)
    assert read_provenance(tmp_path / "a.png") == plain


def test_a_value_that_cannot_be_kept_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold a object"):
        save_image(PICTURE, tmp_path / "a.png", {"what": object()})
    assert list(tmp_path.iterdir()) == []


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_image(PICTURE, tmp_path / name, FACTS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_full_disk_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(PICTURE, tmp_path / "sheet.png", FACTS)

    def half_a_file(self: Image.Image, path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"\x89PNG")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half_a_file)
    with pytest.raises(LabError, match=r"sheet\.png: cannot be written \(No space left on device\)"):
        save_image(PICTURE, tmp_path / "sheet.png", {"seed": 8})
    assert read_provenance(tmp_path / "sheet.png") == FACTS
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(LabError, match="cannot be written"):
        save_image(PICTURE, tmp_path / "results" / "a.png", {})


def test_only_png_is_written(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"name the file sheet\.png"):
        save_image(PICTURE, tmp_path / "sheet.jpg", FACTS)


def test_reading_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no such file"):
        read_provenance(tmp_path / "none.png")
    PICTURE.save(tmp_path / "bare.png")
    with pytest.raises(LabError, match=r"no bare\.png\.json beside it"):
        read_provenance(tmp_path / "bare.png")
    (tmp_path / "bare.png.json").write_text("{")
    with pytest.raises(LabError, match="not valid JSON"):
        read_provenance(tmp_path / "bare.png")
