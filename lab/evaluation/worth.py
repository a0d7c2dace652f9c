"""All measures of some generated pictures together, and what as many real ones get."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lab.data import ImageSet
from lab.errors import LabError
from lab.evaluation.memorisation import Audit, audit
from lab.evaluation.metrics import density_coverage, fid, kid, precision_recall
from lab.evaluation.spaces import FeatureSpace
from lab.judging import Judge, recognised
from lab.quality import diversity, saturation
from lab.render import from_uint8
from lab.seeding import generator


@dataclass(frozen=True)
class Measures:
    """Of n pictures in one space, against the same reference of real ones; NaN where a measure has no meaning."""

    fid: float
    kid: float
    kid_error: float
    precision: float
    recall: float
    density: float
    coverage: float
    top1: float  # share that the judge takes for the class that was asked for; of real ones, all held-out pictures
    top5: float
    diversity: float  # mean distance within a class, root mean square of the space's numbers
    saturation: float  # HSV, mean over pixels
    copies: float  # share nearer to a training picture than nearly all held-out ones are; see `Audit`
    clip_similarity: float = math.nan  # mean cosine with the name of the class, where a CLIP knows the data
    colour_accuracy: float = math.nan  # share of samples of colour prompts with the colour, for runs that take prompts
    cas_top1: float = math.nan  # share of held-out pictures that a classifier trained on these alone is right about
    cas_top5: float = math.nan


@dataclass(frozen=True)
class Worth:
    """What generated pictures got, beside as many real ones from the training set and all held-out ones."""

    generated: Measures
    real: Measures  # the floor at the same n: other training pictures against the same reference
    judge: dict[str, float]  # how often the judge is right about held-out pictures
    n: int
    reference: int  # real pictures of the reference
    space: str
    seed: int

    def plus(self, side: str, **numbers: float) -> "Worth":
        """The same with further measures of "generated" or "real"."""
        return replace(self, **{side: replace(getattr(self, side), **numbers)})

    def facts(self) -> dict[str, Any]:
        """As JSON takes it, which has no NaN."""
        told = asdict(self)
        for side in ("generated", "real"):
            told[side] = {key: None if math.isnan(value) else value for key, value in told[side].items()}
        return told


def worth(
    pixels: Tensor,
    labels: Tensor,
    train: ImageSet,
    held_out: ImageSet,
    judge: Judge,
    space: FeatureSpace,
    seed: int = 0,
) -> tuple[Worth, Audit]:
    """Of samples (N, H, W, 3) uint8 with the classes they were asked for (N,); -1 for none.

    The training set is divided at random: N of its pictures take the part of samples, which gives the floor, and the
    rest is the reference of both. Raises LabError where that would leave fewer than N for the reference.
    """
    n = len(pixels)
    check_reference(n, len(train))
    floor, rest = floor_pictures(train, n, seed)
    images, real = from_uint8(pixels), train.view(floor)
    reference, views = space(train.view(rest)), _views(train, space)
    of_held_out = space(held_out.view(torch.arange(len(held_out))))
    generated, check = space(images), space(real)
    found = audit(generated, views, of_held_out)
    # A training picture is its own nearest: the floor of copies is that of held-out pictures.
    floor_of_copies = float((found.held_out < found.threshold).float().mean())
    ours = _measures(images, generated, labels, reference, found.rate, seed, *shares_recognised(judge, images, labels))
    # The judge has seen the floor's pictures with their classes, and held-out ones never.
    shares = shares_recognised(judge, held_out.view(torch.arange(len(held_out))), held_out.labels)
    theirs = _measures(real, check, train.labels[floor], reference, floor_of_copies, seed, *shares)
    return Worth(ours, theirs, judge.held_out, n, len(rest), space.name, seed), found


def check_reference(n: int, train: int) -> None:
    """LabError unless the training set has pictures enough for a floor of n and a reference of as many."""
    if train < 2 * n:
        raise LabError(f"n={n}: the floor takes {n} of {train} training pictures, and the rest must not be fewer")


def floor_pictures(train: ImageSet, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the training pictures that play the samples (n,), and of the reference (N - n,)."""
    order = torch.randperm(len(train), generator=generator(seed, "floor"))
    return order[:n], order[n:]


def _views(train: ImageSet, space: FeatureSpace) -> Tensor:
    """(2, T, D): each training picture and its mirror image."""
    images = train.view(torch.arange(len(train)))
    return torch.stack([space(images), space(images.flip(-1))])


def _measures(
    images: Tensor,
    features: Tensor,
    labels: Tensor,
    reference: Tensor,
    copies: float,
    seed: int,
    first: float,
    five: float,
) -> Measures:
    mean, error = kid(reference, features, seed)
    return Measures(
        fid(reference, features),
        mean,
        error,
        *precision_recall(reference, features),
        *density_coverage(reference, features),
        first,
        five,
        within_classes(features, labels),
        float(saturation(images).mean()),
        copies,
    )


def shares_recognised(judge: Judge, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Shares whose class the judge puts first, and among the first five; NaN without classes."""
    if bool((labels < 0).all()):
        return math.nan, math.nan
    first, five = recognised(judge.logits, images, labels)
    return float(first.float().mean()), float(five.float().mean())


def within_classes(features: Tensor, labels: Tensor) -> float:
    """Mean distance of two pictures of a class, over the classes that have two; NaN where none has."""
    groups = [features[labels == label] for label in labels.unique()]
    spread = [float(diversity(group[None])) for group in groups if len(group) > 1]
    return sum(spread) / len(spread) if spread else math.nan
