"""Checkpoints that exist whole or not at all.

A checkpoint is a folder `step_00001000/` of safetensors files, `state.json` and `manifest.json`. It is
written in a staging folder beside its place, synced, and moved there by one rename: whoever dies, at whatever
moment, leaves the earlier checkpoints as they were. The manifest holds size and SHA-256 of each file, so that
a disk's mistake is noticed too. Nothing is pickled: opening a stranger's checkpoint runs no code of theirs.
"""

import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from lab.errors import LabError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "state.json"
_CHECKPOINT = re.compile(r"step_(\d+)(\.old)?")
_STAGING = re.compile(r"\.staging-(\d+)-.+")  # the process that writes, then what it writes


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For keeping: matrices and filters in half precision; vectors, few and perhaps statistics, as they are."""
    kept = {key: t.half() if t.is_floating_point() and t.ndim > 1 else t for key, t in tensors.items()}
    return {key: tensor.detach().cpu().contiguous() for key, tensor in kept.items()}


class CheckpointDamaged(LabError):
    """A checkpoint that its manifest does not vouch for; names the file and what is wrong with it."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: `step` and `state` are read, the tensors wait on disk."""

    path: Path
    step: int
    state: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors saved under `name`, on the CPU; LabError if there are none of that name."""
        self.fingerprint(name)
        return safetensors.torch.load_file(self.path / f"{name}.safetensors")

    def holds(self, name: str) -> bool:
        """Whether tensors were saved under `name`."""
        return f"{name}.safetensors" in _read_manifest(self.path)

    def fingerprint(self, name: str) -> str:
        """SHA-256 (hex) of the file saved under `name`; LabError if there is none of that name."""
        files = _read_manifest(self.path)
        if f"{name}.safetensors" not in files:
            held = ", ".join(sorted(Path(file).stem for file in files if file != STATE))
            raise LabError(f"{self.path}: holds no {name!r}; it holds: {held}")
        return str(files[f"{name}.safetensors"]["sha256"])


def save(
    directory: Path,
    step: int,
    tensors: dict[str, dict[str, Tensor]],
    state: dict[str, Any],
    keep: int = 2,
    best: float | None = None,
    keep_best: int = 1,
) -> Path:
    """Save `tensors` (one file a name) and the JSON-able `state`; return the checkpoint's folder.

    `best` (lower is better) goes into the state. Once the new one is in place, older ones are deleted but
    for the newest `keep` and the best `keep_best`. One of a later step (training went back) stays.

    Raises LabError, with the earlier checkpoints intact, if the disk is full or refuses, or if `keep` < 1.
    """
    if keep < 1 or keep_best < 0:
        raise LabError(f"keep={keep}, keep_best={keep_best}: must be at least 1 and 0")
    record = {"step": step, "state": state if best is None else {**state, "best": best}}
    document = json.dumps(record, indent=1).encode()  # what is not JSON fails before anything is written
    target = Path(directory) / f"step_{step:08d}"
    staging = _staging(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_staging(target.parent)
        staging.mkdir()
        _write_all(staging, tensors, document)
        _put_in_place(staging, target)
        _prune(target.parent, step, keep, keep_best)
    except OSError as error:
        raise LabError(f"{target}: cannot be saved ({error}); is it writable, is there space?") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # gone already if all went well
    return target


def latest(directory: Path) -> Checkpoint | None:
    """The newest sound one, None if there are none; warns of damaged ones, LabError if all of them are."""
    found = _checkpoints(Path(directory))
    for path in found:
        try:
            return load(path)
        except CheckpointDamaged as error:
            logger.warning("skipping a damaged checkpoint: %s", error)
    if found:
        raise LabError(f"{directory}: all {len(found)} checkpoints are damaged; restore one or start anew")
    return None


def newest_step(directory: Path) -> int | None:
    """The step of the newest checkpoint, sound or not; None where there is none."""
    return max(map(_step, _checkpoints(directory)), default=None)


def of_step(directory: Path, step: int) -> Checkpoint:
    """The one of a step; LabError, naming the steps that there are, where there is none, or as `verify`."""
    found = [path for path in _checkpoints(Path(directory)) if _step(path) == step]
    if not found:
        steps = sorted({_step(path) for path in _checkpoints(Path(directory))})
        raise LabError(f"step={step}: {directory} holds {', '.join(map(str, steps)) or 'none'}")
    return load(found[0])


def best(directory: Path) -> Checkpoint:
    """The one with the lowest `best`; LabError where none has any, or as `verify`."""
    rated = [(value, path) for path in _checkpoints(Path(directory)) if (value := _best(path)) is not None]
    value, path = min(rated, default=(math.inf, Path()), key=lambda pair: pair[0])
    if math.isinf(value):
        raise LabError(f"{directory}: holds no checkpoint that was rated; name one by its step")
    return load(path)


def load(path: Path, contents: bool = True) -> Checkpoint:
    """The checkpoint in folder `path`, verified. Raises LabError, and CheckpointDamaged as `verify` does."""
    path = Path(path)
    if not path.is_dir():
        raise LabError(f"{path}: no checkpoint there; expected a folder like step_00001000")
    verify(path, contents)
    record = _read_json(path / STATE, step=int, state=dict)
    return Checkpoint(path, record["step"], record["state"])


def verify(path: Path, contents: bool = True) -> None:
    """Raise CheckpointDamaged naming the first file whose size, or with `contents` SHA-256, differs."""
    for name, entry in _read_manifest(Path(path)).items():
        file = Path(path) / name
        try:
            size = file.stat().st_size
            if size != entry["bytes"]:
                raise CheckpointDamaged(f"{file}: has {size} bytes, {entry['bytes']} were saved")
            if contents and hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
                raise CheckpointDamaged(f"{file}: its content is not what was saved (SHA-256 differs)")
        except OSError as error:
            raise CheckpointDamaged(f"{file}: cannot be read ({error})") from error


def _write_all(staging: Path, tensors: dict[str, dict[str, Tensor]], document: bytes) -> None:
    """Every file, synced, then the manifest that vouches for them, then the folder that lists them."""
    files = {STATE: _write(staging / STATE, document)}
    for name, group in tensors.items():
        content = safetensors.torch.save({key: _detached(tensor) for key, tensor in group.items()})
        files[f"{name}.safetensors"] = _write(staging / f"{name}.safetensors", content)
    _write(staging / MANIFEST, json.dumps({"files": files}, indent=1).encode())
    _sync_folder(staging)


def _detached(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU: safetensors refuses views, and tied weights that share their memory."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _write(file: Path, content: bytes) -> dict[str, int | str]:
    """Write and sync one file; its manifest entry, of what was meant and not of what the disk made of it."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _put_in_place(staging: Path, target: Path) -> None:
    """Rename; a folder already there becomes `.old`, where `latest` finds it should we die before the end."""
    if target.exists():
        old = target.with_name(f"{target.name}.old")
        if old.exists():
            _discard(old)
        target.rename(old)
    staging.rename(target)
    _sync_folder(target.parent)


def _prune(directory: Path, step: int, keep: int, keep_best: int) -> None:
    """Delete checkpoints up to `step` that are not among the newest or the best; damaged ones never count."""
    found = _checkpoints(directory)
    rating = {path: value for path in found if (value := _best(path)) is not None}
    sound = {_step(path): path for path in reversed(rating)}  # one a step: `.old` comes first, so it yields
    newest = [path for one, path in reversed(sound.items()) if one <= step][:keep]
    rated = sorted((path for path in sound.values() if rating[path] < math.inf), key=lambda path: rating[path])
    for path in found:
        if _step(path) <= step and path not in newest + rated[:keep_best]:
            _discard(path)


def _best(path: Path) -> float | None:
    """A checkpoint's `best`, infinite if it has none; None if damaged (by sizes: hashing would be slow)."""
    try:
        value = load(path, contents=False).state.get("best")
    except CheckpointDamaged:
        return None
    return value if isinstance(value, int | float) and math.isfinite(value) else math.inf


def _checkpoints(directory: Path) -> list[Path]:
    """Checkpoint folders, newest first, a replaced one (`.old`) after the one that replaced it."""
    found = [path for path in directory.glob("step_*") if _CHECKPOINT.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (-_step(path), path.name))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_").removesuffix(".old"))


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """{file name: {"bytes", "sha256"}}; CheckpointDamaged if the manifest is missing or is none."""
    files: dict[str, dict[str, Any]] = _read_json(path / MANIFEST, files=dict)["files"]
    listed = all(isinstance(one, dict) and {"bytes", "sha256"} <= one.keys() for one in files.values())
    if STATE not in files or not listed:
        raise CheckpointDamaged(f"{path / MANIFEST}: is not a checkpoint's manifest")
    return files


def _read_json(file: Path, **types: type) -> dict[str, Any]:
    """The JSON object in `file`, whose named values have the given types; CheckpointDamaged otherwise."""
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor UTF-8
        raise CheckpointDamaged(f"{file}: cannot be read ({error})") from error
    if isinstance(document, dict) and all(isinstance(document.get(key), kind) for key, kind in types.items()):
        return document
    raise CheckpointDamaged(f"{file}: is not a JSON object with {', '.join(types)}")


def _staging(target: Path) -> Path:
    """A name beside `target` that tells which process owns it; no two saves of one process overlap."""
    return target.with_name(f".staging-{os.getpid()}-{target.name}")


def _remove_stale_staging(directory: Path) -> None:
    """Delete what dead processes left behind."""
    for path in directory.iterdir():
        owner = _STAGING.fullmatch(path.name)
        if owner and _is_left_over(int(owner[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_left_over(process: int) -> bool:
    """Whether its owner is dead; our own number is a dead one's too, which a container gave out again."""
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # else it runs, and is somebody else's
    return process == os.getpid()


def _discard(path: Path) -> None:
    """Delete a checkpoint, renamed first, so that a half-deleted one is never taken for a checkpoint."""
    shutil.rmtree(path.rename(_staging(path)), ignore_errors=True)  # the next save retries what resists


def _sync_folder(path: Path) -> None:
    """Make new names in a folder survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
