"""Whether generated pictures are copies: how near each is to its nearest training picture, against held-out ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

AT_A_TIME = 512  # rows of distances held together
QUANTILE = 0.01  # of held-out pictures that are nearer to the training set than what counts as a copy


@dataclass(frozen=True)
class Audit:
    """Nearest training pictures of N generated ones, in one space.

    distances   (N,) to the nearest, root mean square of the numbers
    neighbours  (N,) its number in the training set; mirrored training pictures count as the pictures
    held_out    (M,) the same distances of held-out pictures
    threshold   below which a picture counts as a copy: nearer than all but QUANTILE of the held-out ones are
    """

    distances: Tensor
    neighbours: Tensor
    held_out: Tensor
    threshold: float

    @property
    def copies(self) -> Tensor:
        """(N,) bool."""
        return self.distances < self.threshold

    @property
    def rate(self) -> float:
        """Share of generated pictures that count as copies; QUANTILE is that of held-out pictures."""
        return float(self.copies.float().mean())

    def suspicious(self, count: int) -> Tensor:
        """Numbers of the generated pictures that are nearest to a training picture, nearest first."""
        return self.distances.argsort()[:count]


def audit(generated: Tensor, train: Tensor, held_out: Tensor) -> Audit:
    """Of rows (N, D), (V, T, D) and (M, D), pixels or features; V views of each training picture, e.g. mirrored."""
    distances, neighbours = nearest(generated, train)
    of_held_out, _ = nearest(held_out, train)
    return Audit(distances, neighbours, of_held_out, float(of_held_out.quantile(QUANTILE)))


def nearest(rows: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (N,) of rows (N, D) to the nearest of T pictures (V, T, D), over all views, and its number (N,)."""
    found = []
    for part in rows.split(AT_A_TIME):
        apart = torch.stack([torch.cdist(part.float(), view.float()) for view in train]).amin(dim=0)  # (n, T)
        found.append(apart.min(dim=1))
    distances = torch.cat([one.values for one in found]) / rows.shape[1] ** 0.5
    return distances, torch.cat([one.indices for one in found])
