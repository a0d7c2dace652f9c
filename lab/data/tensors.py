"""Tensors that are computed from a whole set, kept on disk with a note of what they were made from."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lab.data.cache import locked, writing_to

log = logging.getLogger(__name__)


def cached(path: Path, about: dict[str, str], shape: tuple[int, ...], make: Callable[[], Tensor]) -> Tensor:
    """The tensor under `path`; made, and written there, where it is missing, damaged, or not `about` the same.

    One process makes it while others wait. Raises LabError naming the folder where it cannot be written.
    """
    found = _read(path, about, shape)
    if found is not None:
        return found
    with writing_to(path.parent), locked(path.with_suffix(".lock")):
        found = _read(path, about, shape)  # another process may have been first
        if found is None:
            found = make().contiguous()
            _write(path, found, about)
    return found


def _read(path: Path, about: dict[str, str], shape: tuple[int, ...]) -> Tensor | None:
    """The tensor, if the file is sound and says that it is what is asked for."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor("values")
            sound = file.metadata() == about and tensor.shape == torch.Size(shape)
    except (SafetensorError, OSError) as error:
        log.warning("%s: damaged (%s)", path, error)
        sound = False
    if not sound:
        log.warning("%s: not what is asked for, making it anew", path)
    return tensor if sound else None


def _write(path: Path, tensor: Tensor, about: dict[str, str]) -> None:
    staged = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        staged.write_bytes(save({"values": tensor}, metadata=about))
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
