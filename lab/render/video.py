"""Frames as a film that every browser plays: H.264 in mp4, or GIF where there is no ffmpeg."""

import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import imageio_ffmpeg
from PIL import Image

from lab.errors import LabError
from lab.render.provenance import write_sidecar, write_whole

PAPER = (255, 255, 255)
BETWEEN_KEYS = 8  # frames: a player that jumps decodes at most so many
SMALLER_QUALITY = 26  # where the bytes count: edges soften, colours stay
QUALITY = 16  # x264's constant rate factor: 0 loses nothing, 18 looks as if it did


def save_video(
    frames: Iterable[Image.Image], path: str | Path, provenance: Mapping[str, Any], fps: float = 12
) -> tuple[int, int]:
    """Write frames of one size as .mp4 (H.264, yuv420p, playable while it loads) or .gif, and `<name>.json` beside it.

    Odd sides get a white pixel more, since H.264 has only even ones. Equal frames give equal pixels.
    Returns width and height of what was written, px.

    Raises:
        LabError: neither .mp4 nor .gif, no ffmpeg, or a file that cannot be written (full disk, no permission).
        ValueError: no frames, or frames of several sizes.
    """
    path = Path(path)
    write = {".mp4": _mp4, ".gif": _gif}.get(path.suffix.lower())
    if write is None:
        raise LabError(f"{path}: a video is .mp4 or .gif; name the file {path.stem}.mp4")
    checked = _of_one_size(frames)
    first = next(checked)
    write_whole(path, lambda staged: write(chain([first], checked), staged, fps))
    write_sidecar(path, provenance)
    return first.size


def check_video(video: str) -> None:
    """LabError unless `video`, mp4 or gif, can be written here: asked before hours of sampling, not after."""
    if video not in ("mp4", "gif"):
        raise LabError(f"video={video}: use mp4 or gif")
    if video == "mp4":
        _ffmpeg()


def _ffmpeg() -> str:
    try:
        program: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        advice = "pip install imageio-ffmpeg, or ask for a GIF: video=gif"
        raise LabError(f"no ffmpeg is found, which makes .mp4 videos: {advice}") from error
    return program


def _of_one_size(frames: Iterable[Image.Image]) -> Iterator[Image.Image]:
    """The frames as RGB with even sides; ValueError at the first that differs in size, or where there is none."""
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    for number, frame in enumerate(chain([first], frames)):
        if frame.size != first.size:
            raise ValueError(f"frame {number} is {frame.size} px, the first {first.size}")
        yield _even(frame.convert("RGB"))


def _mp4(frames: Iterator[Image.Image], staged: Path, fps: float) -> None:
    _ffmpeg()
    first, count = next(frames), 1
    try:
        writer = imageio_ffmpeg.write_frames(
            str(staged), first.size, fps=fps, codec="libx264", quality=None, pix_fmt_out="yuv420p",
            macro_block_size=1, ffmpeg_log_level="error", output_params=_options(QUALITY),
        )  # fmt: skip
        writer.send(None)
        writer.send(first.tobytes())
        for frame in frames:
            writer.send(frame.tobytes())
            count += 1
        writer.close()
    except OSError as error:  # the pipe broke; ffmpeg's own words come with many lines of log
        raise OSError(f"ffmpeg: {str(error).strip().splitlines()[-1]}") from error
    if _frames_in(staged) != count:
        raise OSError(f"ffmpeg could not write {count} frames; is the disk full?")


def _options(quality: int) -> list[str]:
    """Of ffmpeg: seekable, playable while it loads, and with neither clock nor version inside."""
    plain = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    return ["-crf", str(quality), "-g", str(BETWEEN_KEYS), "-movflags", "+faststart", "-f", "mp4", *plain]


def smaller_video(path: Path) -> bytes:
    """The .mp4 coded anew at SMALLER_QUALITY, two fifths of the bytes; as it is where that has no fewer.

    Raises:
        LabError: no ffmpeg.
        OSError: `path` cannot be read.
    """
    data = path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "smaller.mp4"
        quiet = [_ffmpeg(), "-loglevel", "error", "-i", str(path), "-pix_fmt", "yuv420p"]
        subprocess.run([*quiet, *_options(SMALLER_QUALITY), str(made)], check=False, stdin=subprocess.DEVNULL)
        found = made.read_bytes() if made.exists() and _frames_in(made) == _frames_in(path) else data
    return found if len(found) < len(data) else data


def _frames_in(path: Path) -> int:
    """As many as can be decoded; ffmpeg's exit code is not passed on, so that only this tells."""
    try:
        count, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError:
        return 0
    return int(count)


def _even(frame: Image.Image) -> Image.Image:
    width, height = (side + side % 2 for side in frame.size)
    if (width, height) == frame.size:
        return frame
    larger = Image.new("RGB", (width, height), PAPER)
    larger.paste(frame, (0, 0))
    return larger


def _gif(frames: Iterator[Image.Image], staged: Path, fps: float) -> None:
    first, *rest = (frame.quantize(256, dither=Image.Dither.NONE) for frame in frames)
    duration = max(20, round(1000 / fps))  # ms; browsers slow down what is shorter
    first.save(staged, format="gif", save_all=True, append_images=rest, duration=duration, loop=0)
