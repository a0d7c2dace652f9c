"""Petals: flowers that the lab paints itself, so that everything runs without a download."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.data import cache
from lab.data.base import ImageSet, Split, check_sizes, check_split, fingerprint, stored_side
from lab.data.petals_drawing import EDITION, NUMBERS, paint
from lab.data.petals_kinds import KINDS, Kind, captions, class_name
from lab.errors import LabError
from lab.seeding import derive, generator

CHUNK = 8  # flowers painted together


class Petals:
    """Painted flowers of 40 kinds with their true factors; image i depends on (seed, split, i) alone."""

    def __init__(
        self,
        image_size: int = 64,
        size: int = 4096,
        held_out_size: int = 512,
        seed: int = 0,
        cache_dir: str = "datasets",
        crop_margin: float = 0.0,
        rotation: float = 1.0,
    ) -> None:
        """Nothing is painted before `load`. Raises LabError where a size is impossible.

        size, held_out_size: images in the two splits. No margin by default, for a crop could cut petals off.
        rotation: how far flowers are turned at random, 1 any way, 0 all with a petal upwards.
        """
        check_sizes(image_size, crop_margin)
        for name, value in (("size", size), ("held_out_size", held_out_size)):
            if value < 1:
                raise LabError(f"data.{name}={value}: must be at least 1 image")
        if not 0 <= rotation <= 1:
            raise LabError(f"data.rotation={rotation}: use a share of a full turn, from 0 to 1")
        self.image_size = image_size
        self.side = stored_side(image_size, crop_margin)
        self.sizes: dict[str, int] = {"train": size, "held_out": held_out_size}
        self.seed, self.rotation = seed, rotation
        self.cache_dir = Path(cache_dir)

    def load(self, split: Split) -> ImageSet:
        """The painted split with captions and factors; raises LabError where the cache cannot be written."""
        check_split(split)
        count = self.sizes[split]
        key = fingerprint("petals", EDITION, split, self.seed, self.side, count, self.rotation)
        pixels = cache.load_or_build(
            self.cache_dir / "cache", f"petals-{split}-{key}", self.side, lambda: self._rows(split)
        ).pixels
        return ImageSet(
            name="petals",
            pixels=pixels,
            labels=torch.arange(count) % len(KINDS),
            class_names=tuple(class_name(kind) for kind in KINDS),
            image_size=self.image_size,
            captions=tuple(self._caption(split, i) for i in range(count)),
            factors=tuple(asdict(_kind(i)) for i in range(count)),
            fingerprint=key,
        )

    def _rows(self, split: Split) -> Iterator[np.ndarray]:
        """Pictures (side, side, 3) uint8 one by one."""
        for start in range(0, self.sizes[split], CHUNK):
            # The last chunk is painted whole as well: even rounding does not depend on the size of the set.
            chunk = range(start, start + CHUNK)
            numbers = torch.stack([self._numbers(split, i) for i in chunk])
            pictures, _ = paint([_kind(i) for i in chunk], numbers, self.side, self.rotation)
            yield from pictures[: self.sizes[split] - start].numpy()

    def _numbers(self, split: Split, index: int) -> Tensor:
        """The random numbers (NUMBERS,) that one flower is painted from."""
        return torch.rand(NUMBERS, generator=generator(self.seed, "petals", split, index))

    def _caption(self, split: Split, index: int) -> str:
        """One of the image's true captions."""
        choice = captions(_kind(index))
        return choice[derive(self.seed, "caption", split, index) % len(choice)]


def _kind(index: int) -> Kind:
    """What flower image `index` shows: the kinds take turns."""
    return KINDS[index % len(KINDS)]
