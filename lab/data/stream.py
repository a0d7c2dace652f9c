"""Batches for training, each a pure function of (seed, step): resuming needs the step and nothing else."""

from copy import copy
from typing import Self

import torch
from torch import Tensor

from lab.data.base import Batch, ImageSet
from lab.errors import LabError
from lab.seeding import generator


class BatchStream:
    """An endless stream of augmented batches; each rank of a run sees a slice of what one process sees."""

    of_moments = False  # whether batches hold an autoencoder's moments in place of images

    def __init__(
        self, image_set: ImageSet, batch_size: int, seed: int, class_balanced: bool = False, flip: bool = True
    ) -> None:
        """batch_size: of all ranks together. Raises LabError where there is nothing to draw from.

        class_balanced: draw a class uniformly, then one of its images; else each image once an epoch.
        """
        if batch_size < 1:
            raise LabError(f"training.batch_size={batch_size}: must be at least 1")
        if len(image_set) == 0:
            raise LabError(f"{image_set.name}: no images to draw batches from")
        if class_balanced and bool((image_set.labels < 0).any()):
            raise LabError(f"class_balanced=true: {image_set.name} has no classes; set it to false")
        self.image_set = image_set
        self.batch_size = batch_size
        self.seed = seed
        self.class_balanced = class_balanced
        self.flip = flip
        self._group(torch.argsort(image_set.labels, stable=True))
        self._orders: dict[int, Tensor] = {}

    def _group(self, images: Tensor) -> None:
        """Balanced batches are drawn from these images, whose labels ascend."""
        self._by_class = images  # (N,)
        counts = torch.bincount(self.image_set.labels[images].clamp(min=0))
        self._counts = counts[counts > 0]  # (classes that have images,)

    def among(self, classes: Tensor) -> Self:
        """A class-balanced stream's copy that draws from these classes alone: batches alike for all sets with them."""
        other = copy(self)
        other._group(self._by_class[torch.isin(self.image_set.labels[self._by_class], classes)])
        return other

    def indices(self, step: int) -> Tensor:
        """Which images make up the global batch (B,) of a step; batches run across the ends of epochs."""
        if self.class_balanced:
            return self._balanced(step)
        places = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, offsets = places // len(self.image_set), places % len(self.image_set)
        return torch.cat([self._order(int(epoch))[offsets[epochs == epoch]] for epoch in epochs.unique()])

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The contiguous slice of the step's batch that belongs to one rank of `world`.

        Crops are drawn for the whole batch and then sliced. Raises LabError unless `world` divides the batch.
        """
        mine = self.share(rank, world)
        indices = self.indices(step)[mine]
        places = self.image_set.place(self.batch_size, generator(self.seed, "augment", step), self.flip)
        return Batch(self.image_set.crop(indices, places.part(mine)), self.image_set.labels[indices], indices)

    def share(self, rank: int, world: int) -> slice:
        """A rank's rows of the batch; LabError unless `world` divides it."""
        if self.batch_size % world:
            raise LabError(f"training.batch_size={self.batch_size}: must be a multiple of {world} processes")
        rows = self.batch_size // world
        return slice(rank * rows, (rank + 1) * rows)

    def epoch(self, step: int) -> float:
        """How many times the set has been seen before this step."""
        return step * self.batch_size / len(self.image_set)

    def _balanced(self, step: int) -> Tensor:
        """Uniform over classes, then over the images of the class (B,)."""
        random = generator(self.seed, "balanced", step)
        draws = torch.rand(2, self.batch_size, generator=random, dtype=torch.float64)
        classes = (draws[0] * len(self._counts)).long()
        starts = self._counts.cumsum(0) - self._counts
        return self._by_class[starts[classes] + (draws[1] * self._counts[classes]).long()]

    def _order(self, epoch: int) -> Tensor:
        """The epoch's permutation (N,); the last two are kept, for a batch may lie in both."""
        if epoch not in self._orders:
            order = torch.randperm(len(self.image_set), generator=generator(self.seed, "order", epoch))
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1} | {epoch: order}
        return self._orders[epoch]
