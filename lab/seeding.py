"""Randomness as a pure function of where it is used: (seed, stream, step, ...), never of what ran before.

A run that resumes at step k, a batch that is split in two and a second process all draw the same numbers,
because nothing is drawn from a generator that somebody else has moved on.
"""

import hashlib
import operator
from collections.abc import Sequence

import torch
from torch import Tensor


def derive(seed: int, *path: int | str) -> int:
    """A 63-bit seed for one place in the program, e.g. `derive(0, "noise", step)`.

    SHA-256 rather than `hash`, which Python salts anew in every process.
    """
    parts = (part if isinstance(part, str) else operator.index(part) for part in (seed, *path))  # NumPy's are ints too
    text = "/".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *path: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator seeded by `derive(seed, *path)`, of which torch's CPU generator uses the low 32 bits."""
    return torch.Generator(device=device).manual_seed(derive(seed, *path))


def noise(shape: Sequence[int], seed: int, indices: Sequence[int], stream: str = "noise") -> Tensor:
    """Unit Gaussian noise (B, *shape) on the CPU, row i drawn from (seed, indices[i]) alone.

    Sample 7 is therefore the same picture in a batch of 1 and in a batch of 64, on any device.
    """
    return torch.stack([torch.randn(*shape, generator=generator(seed, stream, int(i))) for i in indices])
