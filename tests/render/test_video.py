"""A film holds every frame as it was given, plays in browsers, and fails in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from lab.errors import LabError
from lab.render import check_video, save_video
from lab.render.video import smaller_video


def frames(count: int = 12, size: tuple[int, int] = (48, 32)) -> list[Image.Image]:
    """Grey squares that grow lighter, each on its own."""
    return [Image.new("RGB", size, (20 * n, 20 * n, 20 * n)) for n in range(count)]


@pytest.mark.parametrize("name", ["film.mp4", "film.gif"])
def test_every_frame_comes_back_in_order(tmp_path: Path, name: str) -> None:
    save_video(frames(), tmp_path / name, {"seed": 3}, fps=10)
    back = imageio.imread(tmp_path / name, index=None)
    assert back.shape[:3] == (12, 32, 48)
    levels = back[..., :3].reshape(12, -1).mean(axis=1)
    assert np.abs(levels - 20 * np.arange(12)).max() < 3
    assert json.loads((tmp_path / f"{name}.json").read_text()) == {"seed": 3}


def test_browsers_can_play_it_while_it_loads(tmp_path: Path) -> None:
    save_video(frames(), tmp_path / "film.mp4", {}, fps=10)
    facts = next(imageio_ffmpeg.read_frames(str(tmp_path / "film.mp4")))
    assert facts["codec"] == "h264" and facts["pix_fmt"].startswith("yuv420p") and facts["fps"] == 10
    data = (tmp_path / "film.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        save_video(frames(), tmp_path / name, {})
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_smaller_video_has_the_same_frames_in_fewer_bytes(tmp_path: Path) -> None:
    grain = [Image.effect_noise((64, 48), 40).convert("RGB") for _ in range(6)]
    moving = [Image.blend(one, Image.new("RGB", one.size, (40 * n, 0, 0)), 0.5) for n, one in enumerate(grain)]
    save_video(moving, tmp_path / "film.mp4", {}, fps=10)
    made = smaller_video(tmp_path / "film.mp4")
    assert len(made) < 0.7 * (tmp_path / "film.mp4").stat().st_size
    assert made.index(b"moov") < made.index(b"mdat")
    (tmp_path / "small.mp4").write_bytes(made)
    before, after = (imageio.imread(tmp_path / name, index=None) for name in ("film.mp4", "small.mp4"))
    assert after.shape == before.shape
    assert np.abs(after.mean(axis=(1, 2)) - before.mean(axis=(1, 2))).max() < 3
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "small.mp4")) == (6, pytest.approx(0.6))
    (tmp_path / "small.mp4").write_bytes(smaller_video(tmp_path / "small.mp4"))
    assert (tmp_path / "small.mp4").stat().st_size <= len(made)


def test_odd_sides_get_a_white_pixel(tmp_path: Path) -> None:
    save_video(frames(3, size=(47, 31)), tmp_path / "film.mp4", {})
    back = imageio.imread(tmp_path / "film.mp4", index=0)
    assert back.shape == (32, 48, 3) and back[-1].min() > 200 and back[:-2, :-2].max() < 60


def test_frames_of_several_sizes_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frame 1 is"):
        save_video([*frames(1), *frames(1, size=(10, 10))], tmp_path / "a.gif", {})
    with pytest.raises(ValueError, match="at least one frame"):
        save_video([], tmp_path / "a.mp4", {})
    with pytest.raises(LabError, match=r"name the file a\.mp4"):
        save_video(frames(), tmp_path / "a.avi", {})
    assert list(tmp_path.iterdir()) == []


def test_without_ffmpeg_a_gif_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(LabError, match=r"no ffmpeg is found.*video=gif"):
        save_video(frames(), tmp_path / "a.mp4", {})
    with pytest.raises(LabError, match="video=gif"):
        check_video("mp4")
    check_video("gif")
    save_video(frames(), tmp_path / "a.gif", {})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.gif", "a.gif.json"]


@pytest.mark.parametrize("name", ["film.mp4", "film.gif"])
def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk: Callable[[int], Path], name: str) -> None:
    folder = small_disk(8)
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(LabError, match=f"{name}: cannot be written") as caught:
        save_video([Image.fromarray(frame) for frame in noise], folder / name, {})
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []
