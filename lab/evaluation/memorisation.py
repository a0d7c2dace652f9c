"""Whether generated pictures are copies: how near each is to its nearest training picture, against held-out ones."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.seeding import generator

AT_A_TIME = 512  # rows of distances held together
SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)  # of the pictures, at which distances are told
NOWHERE = -1  # number of a picture that is none of the training set
SAME = 1e-3  # of the median distance of held-out pictures: up to which one is a picture of the training set again
QUANTILE = 0.01  # of held-out pictures that are nearer to the training set than what counts as a copy


@dataclass(frozen=True)
class Audit:
    """Nearest training pictures of N generated ones, in one space.

    distances   (N,) to the nearest, root mean square of the numbers
    neighbours  (N,) its number in the training set; mirrored training pictures count as the pictures
    held_out    (M,) the same distances of held-out pictures
    real        (R,) and of training pictures, each to the nearest other one
    threshold   up to which a picture counts as a copy: nearer than all but QUANTILE of the held-out ones are, those
                left out that are in the training set as well
    """

    distances: Tensor
    neighbours: Tensor
    held_out: Tensor
    real: Tensor
    threshold: float

    @property
    def copies(self) -> Tensor:
        """(N,) bool."""
        return self.distances <= self.threshold

    @property
    def rate(self) -> float:
        """Share of generated pictures that count as copies; beside it belongs `chance`."""
        return float(self.copies.float().mean())

    @property
    def chance(self) -> float:
        """The share of pictures like the held-out ones that would count as copies: QUANTILE, and more of few.

        That M pictures leave below their interpolated quantile q of one more: (1 + q (M - 1)) / (M + 1).
        """
        return chance_of(int(_new(self.held_out).sum()))

    @property
    def rate_held_out(self) -> float:
        """The rate of a random half of the held-out pictures by the threshold of the rest: `chance_of` these."""
        order = torch.randperm(len(self.held_out), generator=generator(0, "copies"))
        of_threshold, counted = self.held_out[order[::2]], self.held_out[order[1::2]]
        return float((counted <= threshold_of(of_threshold)).float().mean())

    @property
    def rate_real(self) -> float:
        """Share of training pictures with another one so near: how often the data themselves repeat a picture."""
        return float((self.real <= self.threshold).float().mean())

    def facts(self) -> "AuditFacts":
        """What is told of the distances."""
        generated, held_out, real = (
            [round(float(x), 4) for x in distances.quantile(torch.tensor(SHARES))]
            for distances in (self.distances, self.held_out, self.real)
        )
        repeated = int((~_new(self.held_out)).sum())
        return AuditFacts(
            round(self.threshold, 4), list(SHARES), generated, held_out, real, repeated, round(self.chance, 4)
        )

    def suspicious(self, count: int) -> Tensor:
        """Numbers of the generated pictures that are nearest to a training picture, nearest first."""
        return self.distances.argsort()[:count]


@dataclass(frozen=True)
class AuditFacts:
    """Distances up to which certain shares of the pictures are."""

    threshold: float
    shares: list[float]
    generated: list[float]
    held_out: list[float]
    real: list[float]
    held_out_in_training: int  # held-out pictures that are in the training set as well
    chance: float  # the share of pictures that count as copies and are none, if they are like the held-out ones


def audit(generated: Tensor, train: Iterable[Tensor], held_out: Tensor, real: tuple[Tensor, Tensor]) -> Audit:
    """Of rows (N, D) and (M, D), pixels or features, and views (T, D) of the training pictures, e.g. mirrored.

    real   rows (R, D) of some training pictures and their numbers (R,), each compared with all but itself
    """
    features, numbers = real
    rows = torch.cat([generated, held_out, features])
    itself = torch.cat([torch.full((len(rows) - len(numbers),), NOWHERE), numbers])
    distances, neighbours = nearest(rows, train, itself)
    of_generated, of_held_out, of_real = distances.split([len(generated), len(held_out), len(numbers)])
    return Audit(of_generated, neighbours[: len(generated)], of_held_out, of_real, threshold_of(of_held_out))


def threshold_of(held_out: Tensor) -> float:
    """Up to which distance a picture counts as a copy, by those (M,) of held-out pictures; 0 where all are copies."""
    new = held_out[_new(held_out)]
    return float(new.quantile(QUANTILE)) if len(new) else 0.0


def chance_of(count: int) -> float:
    """The share of further pictures that lie below the QUANTILE of `count`; 1 of none."""
    return (1 + QUANTILE * (count - 1)) / (count + 1) if count else 1.0


def _new(held_out: Tensor) -> Tensor:
    """(M,) which held-out pictures are none of the training set's, by their distances to it."""
    return held_out > SAME * held_out.median()


def nearest(rows: Tensor, train: Iterable[Tensor], itself: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distance (N,) of rows (N, D) to the nearest of T pictures in any of their views (T, D), and its number (N,).

    itself   (N,) numbers of pictures that the rows are not compared with, in any view; NOWHERE for none
    """
    distances, numbers = torch.full((len(rows),), torch.inf), torch.zeros(len(rows), dtype=torch.long)
    left_out = torch.full((len(rows),), NOWHERE) if itself is None else itself
    for view in train:  # one at a time: there may be many
        pieces = zip(rows.split(AT_A_TIME), left_out.split(AT_A_TIME), strict=True)
        which = torch.cat([_nearest_of(part.float(), view.float(), own) for part, own in pieces])
        apart = (rows.float() - view[which].float()).norm(dim=1)  # cdist's own are not exact near 0
        numbers = torch.where(apart < distances, which, numbers)
        distances = torch.minimum(apart, distances)
    return distances / rows.shape[1] ** 0.5, numbers


def _nearest_of(rows: Tensor, view: Tensor, itself: Tensor) -> Tensor:
    """(N,) the nearest row of the view (T, D) to each of (N, D), but for these."""
    apart = torch.cdist(rows, view)
    of_training = (itself != NOWHERE).nonzero()[:, 0]
    apart[of_training, itself[of_training]] = torch.inf
    return apart.argmin(dim=1)
