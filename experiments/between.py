"""Two ways from one sample to another: the condition changes while the noise stays, or the noise while it stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.common import in_pieces
from experiments.subjects import Score
from lab.conditioning import Condition
from lab.diffusion import lerp, slerp
from lab.model import DiffusionModel
from lab.parts import Part, Parts
from lab.render import from_uint8, to_uint8
from lab.seeding import noise

CONDITION, NOISE = "condition", "noise"
ENDS = ("first", "second")
MOVED = "distance"  # what is measured along a way beside its pictures' closeness to either end


@dataclass(frozen=True)
class Ways:
    """P points of each way, N noises; both ways begin with the same pictures."""

    weights: list[float]  # P, from 0 at the first end to 1 at the second
    images: dict[str, Tensor]  # by what changes: (P, N, 3, H, W) in [-1, 1]


def walk(
    model: DiffusionModel,
    ends: Condition,
    seeds: tuple[int, int],
    points: int,
    count: int,
    settings: Mapping[str, Any],
    parts: Parts,
) -> Ways:
    """Samples of all points of both ways, as one batch.

    ends       two rows that the condition goes between, straight; one row, and the noise alone moves
    seeds      number n of the first one's noise becomes number n of the second's, along the arc, under the first row
    settings   of `DiffusionModel.sample`; a sampler that adds noise on the way draws that of settings["seed"]
    parts      where what is finished is kept
    """
    moving = (CONDITION, NOISE) if len(ends) > 1 else (NOISE,)
    shape = (points, len(moving), count)
    point, way, number = (index.flatten() for index in torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    along = torch.linspace(0, 1, points)[point]
    of_noise = way == len(moving) - 1
    told, drawn = along.where(~of_noise, 0), along.where(of_noise, 0)
    start, end = (start_noise(model, seed, count) for seed in seeds)

    def pieces(rows: Tensor) -> Part:
        images = model.sample(
            condition=mixed(ends, told[rows]),
            latents=slerp(start[number[rows]], end[number[rows]], drawn[rows]),
            numbers=number[rows].tolist(),
            output="tensor",
            progress=False,
            **settings,
        )
        assert isinstance(images, Tensor)
        return {"images": torch.from_numpy(to_uint8(images))}

    found = in_pieces(model, len(point), settings, parts, pieces, "interpolation")
    pictures = from_uint8(torch.cat([part["images"] for part in found]))
    by_way = pictures.view(*shape, *pictures.shape[1:]).unbind(1)
    return Ways(torch.linspace(0, 1, points).tolist(), dict(zip(moving, by_way, strict=True)))


def start_noise(model: DiffusionModel, seed: int, count: int) -> Tensor:
    """The noise (N, C, h, w) that samples 0..N-1 of a seed start from."""
    sides = model.check_size(model.image_size, model.image_size)
    return noise((model.autoencoder.latent_channels, *sides), seed, range(count))


def mixed(ends: Condition, weights: Tensor) -> Condition:
    """Vector and tokens at weights (B,) of the straight way from the first row of `ends` to the last."""
    return ends.map(lambda part: lerp(part[:1], part[-1:], weights.to(part)))


def measure(ways: Ways, scores: Mapping[str, Score]) -> dict[str, dict[str, list[float]]]:
    """What is measured, by what changes, a number for each point, the mean over noises.

    scores   by name, the ends as its subjects: closeness to the first is called <name>_first
    """
    measured = {
        f"{name}_{end}": {way: _closeness(images, score, subject) for way, images in ways.images.items()}
        for name, score in scores.items()
        for subject, end in enumerate(ENDS)
    }
    return measured | {MOVED: {way: moved(images) for way, images in ways.images.items()}}


def _closeness(images: Tensor, score: Score, subject: int) -> list[float]:
    return [float(score(some, torch.full((len(some),), subject)).mean()) for some in images]


def moved(images: Tensor) -> list[float]:
    """Distance of each point's pictures (P, N, 3, H, W) from those before; NaN at the first.

    Root mean square of pixels in [-1, 1], the mean over noises.
    """
    distances = images.diff(dim=0).square().flatten(2).mean(dim=2).sqrt().mean(dim=1)
    return [float("nan"), *distances.tolist()]


@dataclass(frozen=True)
class Pace:
    """How evenly a way changes."""

    fastest: float  # the middle of the step with the greatest change, as a weight
    ratio: float  # that change to the mean one
    quarter: float  # the weight where a quarter of all change is done ...
    three_quarters: float  # ... and where three are


def pace(weights: Sequence[float], distances: Sequence[float]) -> Pace | None:
    """The pace of a way whose steps are `distances`, as `moved` gives them; None where nothing changes."""
    steps = np.array(distances[1:])
    if not steps.sum() > 0:
        return None
    fastest = int(steps.argmax())
    middle = [(one + other) / 2 for one, other in pairwise(weights)][fastest]
    marks = np.interp([0.25, 0.75], np.concatenate([[0], steps.cumsum() / steps.sum()]), weights)
    return Pace(middle, float(steps.max() / steps.mean()), float(marks[0]), float(marks[1]))
