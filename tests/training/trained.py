"""What is left of a run, for the tests that train whole runs."""

import csv
from pathlib import Path

import torch
from torch import Tensor

from lab import checkpoint

# Overrides for an autoencoder that trains in a moment.
VAE = ("autoencoder.channels=16", "autoencoder.blocks=1", "reconstruction.perceptual=none")


def tensors(run: Path) -> dict[str, Tensor]:
    """All that the newest checkpoint holds."""
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    return {f"{n}/{k}": v for n in ("raw", "weights", "optimizer") for k, v in found.tensors(n).items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def rows(run: Path) -> list[dict[str, str]]:
    """The log without the columns that time decides."""
    with (run / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
