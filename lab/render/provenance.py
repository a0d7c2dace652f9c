"""Pictures that say how they were made: the facts travel in the PNG itself and lie beside it as JSON."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from lab.errors import LabError

KEY = "provenance"


def save_image(image: Image.Image, path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Write a PNG with its provenance in a text chunk, and `<name>.png.json` with the same facts beside it.

    Equal pictures and facts give equal bytes. Both files appear whole or not at all.

    Raises:
        LabError: the path does not end in .png, or cannot be written (full disk, no permission).
        TypeError: the provenance holds something that JSON, Path, NumPy and torch do not know.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise LabError(f"{path}: only .png keeps provenance inside; name the file {path.stem}.png")
    facts = PngInfo()
    facts.add_itxt(KEY, as_json(provenance))
    write_whole(path, lambda staged: image.save(staged, format="png", pnginfo=facts))
    write_sidecar(path, provenance)


def write_sidecar(path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Write the facts of any file (a video, a table) as `<name>.json` beside it.

    Raises:
        LabError: the file cannot be written.
        TypeError: as for `save_image`.
    """
    text = as_json(provenance) + "\n"
    write_whole(_sidecar(Path(path)), lambda staged: staged.write_text(text, encoding="utf-8"))


def read_provenance(path: str | Path) -> dict[str, Any]:
    """The facts inside a picture, else (a video, a stripped picture) those of the JSON beside it.

    Raises:
        LabError: there is no such file, or it carries no provenance in either place.
    """
    path = Path(path)
    if not path.exists():
        raise LabError(f"{path}: no such file")
    text = _embedded(path)
    if text is None and _sidecar(path).exists():
        text = _sidecar(path).read_text(encoding="utf-8")
    if text is None:
        raise LabError(f"{path}: carries no provenance, and there is no {_sidecar(path).name} beside it")
    try:
        facts: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise LabError(f"{path}: its provenance is not valid JSON ({error})") from error
    return facts


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then rename it there: a reader never meets half a file.

    Raises:
        LabError: the folder or file cannot be written, e.g. because the disk is full.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(staged)
        os.replace(staged, path)
    except OSError as error:
        raise LabError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _embedded(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            image.load()  # text may stand behind the pixels
            text = image.info.get(KEY)
    except (UnidentifiedImageError, OSError):
        return None
    return None if text is None else str(text)


def as_json(provenance: Mapping[str, Any]) -> str:
    """The facts as text; paths, arrays and tensors become strings and lists."""
    return json.dumps(dict(provenance), indent=2, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    """What json does not know by itself: paths, arrays, tensors and their scalars."""
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, np.ndarray | np.generic | Tensor):
        return value.tolist()
    raise TypeError(f"provenance cannot hold a {type(value).__name__}: {value!r}")
