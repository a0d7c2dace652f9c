"""What the rest of the lab sees of a data set: an `ImageSet` held whole as bytes and `Batch`es of it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lab.errors import LabError

Split = Literal["train", "held_out"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images with their labels and where they stand in the set."""

    images: Tensor  # (B, 3, H, W) float32 in [-1, 1]
    labels: Tensor  # (B,) int64, -1 where the set has no classes
    indices: Tensor  # (B,) int64, positions in the ImageSet


class Placement(NamedTuple):
    """Where each crop of a batch lies in its picture, in pixels, and whether it is mirrored."""

    top: Tensor  # (B,) int64
    left: Tensor  # (B,) int64
    flipped: Tensor  # (B,) bool

    def part(self, rows: slice) -> "Placement":
        """The placement of some rows of the batch."""
        return Placement(self.top[rows], self.left[rows], self.flipped[rows])


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set held whole, decoded once; its pictures may exceed a crop, to leave room for random ones."""

    name: str
    pixels: Tensor  # (N, S, S, 3) uint8 with S >= image_size, memory-mapped
    labels: Tensor  # (N,) int64, -1 where there are no classes
    class_names: tuple[str, ...]  # () where there are no classes
    image_size: int  # px, the side of a crop
    captions: tuple[str, ...]  # () where unknown
    factors: tuple[dict[str, Any], ...]  # the true factors of each image, () where unknown
    fingerprint: str  # 16 hex digits, SHA-256 of all that the pixels depend on; keys caches
    files: tuple[str, ...] = ()  # below the set's folder; () where there are none

    def file(self, index: int) -> str:
        """Where a picture comes from; "" where it has no file."""
        return self.files[index] if self.files else ""

    def __len__(self) -> int:
        return self.pixels.shape[0]

    @property
    def margin(self) -> int:
        """By how many pixels a picture exceeds a crop."""
        return self.pixels.shape[1] - self.image_size

    def view(self, indices: Tensor, generator: torch.Generator | None = None, flip: bool = True) -> Tensor:
        """Crops (B, 3, H, W) in [-1, 1]: random and half of them mirrored; central without a generator."""
        return self.crop(indices, self.place(len(indices), generator, flip))

    def batch(self, indices: Tensor, generator: torch.Generator | None = None, flip: bool = True) -> Batch:
        """`view` with labels."""
        return Batch(self.view(indices, generator, flip), self.labels[indices], indices)

    def place(self, count: int, generator: torch.Generator | None, flip: bool = True) -> Placement:
        """Random placements for `count` crops; central and not mirrored where there is no generator."""
        if generator is None:
            centre = torch.full((count,), self.margin // 2)
            return Placement(centre, centre, torch.zeros(count, dtype=torch.bool))
        top, left = torch.randint(self.margin + 1, (2, count), generator=generator)
        # Drawn even where unused, so that `flip` changes nothing else.
        mirrored = torch.rand(count, generator=generator) < 0.5
        return Placement(top, left, mirrored & flip)

    def crop(self, indices: Tensor, placement: Placement) -> Tensor:
        """The crops (B, 3, H, W) float32 in [-1, 1] of the given images at the given places."""
        side, pixels = self.image_size, self.pixels.numpy()
        crops = np.empty((len(indices), 3, side, side), dtype=np.float32)
        # A loop over slices: at 64 px half the time of any gather over index tensors.
        where = zip(indices.tolist(), *(part.tolist() for part in placement), strict=True)
        for row, (image, top, left, flipped) in enumerate(where):
            cut = pixels[image, top : top + side, left : left + side]  # (S, S, 3)
            crops[row] = (cut[:, ::-1] if flipped else cut).transpose(2, 0, 1)
        return torch.from_numpy(crops).div_(127.5).sub_(1)


class Source(Protocol):
    """A data set before it is loaded: what `conf/data/*.yaml` builds."""

    image_size: int

    def load(self, split: Split) -> ImageSet:
        """The decoded set; raises LabError where the data are missing or unfit."""
        ...


def check_split(split: str) -> None:
    """Raise LabError unless `split` is one of the two there are."""
    if split not in ("train", "held_out"):
        raise LabError(f"unknown split {split!r}: choose train or held_out")


def check_sizes(image_size: int, crop_margin: float) -> None:
    """Raise LabError where no picture could have these sizes."""
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise LabError(f"data.image_size={image_size!r}: must be a whole number of pixels, at least 1")
    if not 0 <= crop_margin <= 1:
        raise LabError(f"data.crop_margin={crop_margin!r}: must lie between 0 (no random crops) and 1")


def check_workers(workers: int | None) -> None:
    """Raise LabError for a number of decoding threads that cannot be; None is one a core."""
    if workers is not None and workers < 1:
        raise LabError(f"data.workers={workers}: use at least 1, or null, one a core")


def stored_side(image_size: int, crop_margin: float) -> int:
    """Side in pixels of the squares that are kept, crops being `image_size` wide."""
    return round(image_size * (1 + crop_margin))


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change with any of the (JSON-able) parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
