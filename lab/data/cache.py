"""Decoded pixels on disk, mapped into memory: written once, whole or not at all, by one process at a time."""

import errno
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from lab.errors import LabError

log = logging.getLogger(__name__)

Rows = Iterable[np.ndarray | LabError]


class Cached(NamedTuple):
    """Pixels and which rows of the source are missing from them."""

    pixels: Tensor  # (N, side, side, 3) uint8, memory-mapped; writing to it never reaches the file
    skipped: dict[int, str]  # position in the source -> why it is not among the pixels


def load_or_build(folder: Path, stem: str, side: int, rows: Callable[[], Rows]) -> Cached:
    """The pixels under `folder/stem.bin`, made from `rows()` where they are missing or damaged.

    A row that is a LabError is left out and noted. Raises LabError naming the folder if that is refused.
    """
    cached = _read(folder, stem, side)
    if cached is not None:
        return cached
    with writing_to(folder), locked(folder / f"{stem}.lock"):
        cached = _read(folder, stem, side)  # another process may have been first
        if cached is None:
            _write(folder, stem, side, rows())
            cached = _read(folder, stem, side)
    if cached is None:
        raise LabError(f"{folder / stem}.bin: damaged while being written; check the disk and start again")
    return cached


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes and threads wait for; a dead process holds none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into a LabError that names the folder."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "no space left; free some" if full else f"cannot write ({error.strerror or error}); allow it"
        raise LabError(f"{folder}: {reason} or set data.cache_dir elsewhere") from error


def _read(folder: Path, stem: str, side: int) -> Cached | None:
    """The cache if it is there and whole."""
    data, about = folder / f"{stem}.bin", folder / f"{stem}.json"
    if not about.exists() or not data.exists():
        return None
    try:
        note: dict[str, Any] = json.loads(about.read_text())
        count, skipped = int(note["count"]), {int(k): str(v) for k, v in note["skipped"].items()}
        sound = note["side"] == side and data.stat().st_size == count * side * side * 3
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        log.warning("%s: damaged cache, building it anew", data)
        return None
    if count == 0:  # nothing to map
        return Cached(torch.empty(0, side, side, 3, dtype=torch.uint8), skipped)
    flat = torch.from_file(str(data), shared=False, size=count * side * side * 3, dtype=torch.uint8)
    return Cached(flat.view(count, side, side, 3), skipped)


def _write(folder: Path, stem: str, side: int, rows: Rows) -> None:
    """Write both files under other names, then rename: the note last, for it vouches for the pixels."""
    for leftover in folder.glob(f"{stem}.*.partial"):  # of a process that died: the lock is ours
        leftover.unlink()
    staged_data, staged_note = (folder / f"{stem}.{kind}.{os.getpid()}.partial" for kind in ("bin", "json"))
    try:
        with staged_data.open("wb") as file:
            note = _append(file, side, rows)
        with staged_note.open("wb") as file:
            file.write(json.dumps(note, indent=1).encode())
            _sync(file)
        (folder / f"{stem}.json").unlink(missing_ok=True)
        os.replace(staged_data, folder / f"{stem}.bin")
        os.replace(staged_note, folder / f"{stem}.json")
    finally:
        staged_data.unlink(missing_ok=True)
        staged_note.unlink(missing_ok=True)


def _append(file: BinaryIO, side: int, rows: Rows) -> dict[str, Any]:
    """Write the rows one after another; writing, unlike mapping, reports a full disk as an error."""
    skipped: dict[int, str] = {}
    position = -1
    for position, row in enumerate(rows):
        if isinstance(row, LabError):
            skipped[position] = str(row)
        else:
            file.write(np.ascontiguousarray(row, dtype=np.uint8).reshape(side, side, 3).data)
    _sync(file)
    return {"count": position + 1 - len(skipped), "side": side, "skipped": skipped}


def _sync(file: BinaryIO) -> None:
    """Bring a file to the disk, so that a power cut cannot leave a whole name on half the bytes."""
    file.flush()
    os.fsync(file.fileno())
