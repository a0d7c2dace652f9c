"""From any image file to RGB bytes, whatever its mode, depth or orientation, or a line that says why not."""

import logging
import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lab.errors import LabError

log = logging.getLogger(__name__)

# All that Pillow has been seen to raise on damaged files; OSError covers unknown formats and truncation.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    OverflowError,
    Image.DecompressionBombError,
)
REPORT_EVERY = 1024  # images between two lines of progress


def open_image(path: str | Path, min_side: int | None = None) -> Image.Image:
    """The picture as 8-bit RGB: upright by its EXIF orientation, transparency laid on white, 16 bits scaled.

    With `min_side` a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, but no side below 2 * min_side.
    Raises LabError naming the file where it is missing, truncated, empty or no image.
    """
    try:
        with Image.open(path) as image:
            if min_side is not None:
                image.draft("RGB", (2 * min_side, 2 * min_side))
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise LabError(f"{path}: no such file") from None
    except UNREADABLE as error:
        raise LabError(f"{path}: {_reason(path, error)}; replace or remove the file") from error


def _reason(path: str | Path, error: Exception) -> str:
    """Why a file could not be read, in a few words on one line."""
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "an empty file (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    return f"a damaged or unsupported image ({' '.join(str(error).split())})"


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB from any mode of Pillow's."""
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        return Image.fromarray(_scale(np.asarray(image), 65535)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_scale(np.asarray(image), 1)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _scale(values: np.ndarray, white: int) -> np.ndarray:
    """Grey values in 0..white as bytes; ValueError where some lie outside."""
    if not 0 <= values.min() <= values.max() <= white:  # also false for NaN
        raise ValueError(f"grey values outside 0 to {white}")
    return np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8)


def opened(picture: str | Path | Image.Image, min_side: int | None = None) -> Image.Image:
    """A file by `open_image`, or a picture that is open already, in the same way made upright 8-bit RGB."""
    if not isinstance(picture, Image.Image):
        return open_image(picture, min_side)
    try:
        return _to_rgb(ImageOps.exif_transpose(picture))
    except UNREADABLE as error:
        raise LabError(f"{picture.mode} picture of {picture.size}: {' '.join(str(error).split())}") from error


def square(picture: str | Path | Image.Image, side: int) -> np.ndarray:
    """The central square of a file or a picture, resized to (side, side, 3) uint8 by Lanczos."""
    image = opened(picture, min_side=side)
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box, reducing_gap=3))


def decode(paths: Sequence[Path], side: int, workers: int | None = None) -> Iterator[np.ndarray | LabError]:
    """Each file's square (side, side, 3) uint8, in order; the error in its place where a file is unfit.

    Threads, one a core by default: Pillow decodes and resizes outside the interpreter's lock.
    """

    def attempt(path: Path) -> np.ndarray | LabError:
        try:
            return square(path, side)
        except LabError as error:
            return error

    with ThreadPoolExecutor(workers or cores()) as pool:
        for start in range(0, len(paths), REPORT_EVERY):
            yield from pool.map(attempt, paths[start : start + REPORT_EVERY])
            log.info("decoded %d of %d images", min(start + REPORT_EVERY, len(paths)), len(paths))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
