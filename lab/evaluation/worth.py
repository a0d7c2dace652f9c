"""All measures of some generated pictures together, and what real ones get."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lab.data import ImageSet
from lab.data.base import Placement
from lab.errors import LabError
from lab.evaluation.memorisation import Audit, audit
from lab.evaluation.metrics import density_coverage, fid, kid, precision_recall
from lab.evaluation.spaces import FeatureSpace, pixel_space
from lab.judging import Judge, recognised
from lab.quality import diversity, saturation
from lab.render import from_uint8
from lab.seeding import generator


@dataclass(frozen=True)
class Measures:
    """Of some pictures in one space, against the same reference of real ones; NaN where a measure has no meaning."""

    fid: float
    kid: float
    kid_error: float
    precision: float
    recall: float
    density: float
    coverage: float
    top1: float  # share that the judge takes for the class that was asked for
    top5: float
    diversity: float  # mean distance within a class, root mean square of the space's numbers
    saturation: float  # HSV, mean over pixels
    copies: float  # share nearer to a (real: another) training picture than nearly all held-out ones are; see `Audit`
    pixel_copies: float  # the same by their pixels
    clip_similarity: float = math.nan  # mean cosine with the name of the class, where a CLIP knows the data
    colour_accuracy: float = math.nan  # share of samples of colour prompts with the colour, for runs that take prompts;
    # of real ones, among those that the CLIP finds first to the prompts
    cas_top1: float = math.nan  # share of held-out pictures that a classifier trained on these alone is right about
    cas_top5: float = math.nan


AT_A_TIME = 1024  # pictures cropped together
LEAST_HELD_OUT = 6  # for density and coverage
SIDES = ("generated", "real", "held_out")


@dataclass(frozen=True)
class Worth:
    """What generated pictures got, beside real ones against the same reference.

    `real` are other training pictures, as many and of the same classes: the floor. The judge and a CLIP have learned
    them and the reference, but neither the samples nor the held-out pictures. Those may have classes in other shares
    (Oxford 102 holds ten of each out), which moves FID and KID as well.
    """

    generated: Measures
    real: Measures
    held_out: Measures  # all of them, which may be fewer
    judge: dict[str, float]  # how often the judge is right about held-out pictures; {} without one
    n: int
    held_out_n: int
    reference: int  # real pictures of the reference
    space: str
    seed: int
    colour_n: int = 0  # samples of colour prompts, and real pictures that were found to them
    cas_n: int = 0  # samples, and real pictures, that a classifier learned from

    def plus(self, side: str, **numbers: float) -> "Worth":
        """The same with further measures of one of SIDES."""
        return replace(self, **{side: replace(getattr(self, side), **numbers)})

    def facts(self) -> dict[str, Any]:
        """As JSON takes it, which has no NaN."""
        told = asdict(self)
        for side in SIDES:
            told[side] = {key: None if math.isnan(value) else value for key, value in told[side].items()}
        return told


def worth(
    pixels: Tensor,
    labels: Tensor,
    train: ImageSet,
    held_out: ImageSet,
    judge: Judge | None,
    space: FeatureSpace,
    seed: int = 0,
) -> tuple[Worth, dict[str, Audit]]:
    """Of samples (N, H, W, 3) uint8 of the classes (N,) of `floor_pictures`; -1 for a run that knows none.

    The training set is divided at random: N of its pictures take the part of samples, which gives the floor, and the
    rest is the reference of all. Possible copies are looked for among all training pictures, in the space and by
    pixels: audits by the names of these. Raises LabError where fewer than N would be left for the reference.
    """
    n = len(pixels)
    check_reference(n, len(train), len(held_out))
    floor, rest = floor_pictures(train, n, seed)
    images, real, unseen = from_uint8(pixels), train.view(floor), held_out.view(torch.arange(len(held_out)))
    by_pixels = pixel_space()
    reference, generated, of_held_out, of_real = (space(given) for given in (train.view(rest), images, unseen, real))
    audits = {
        space.name: audit(generated, _views(train, space), of_held_out, (of_real, floor)),
        by_pixels.name: audit(
            by_pixels(images), _shifted_views(train, by_pixels), by_pixels(unseen), (by_pixels(real), floor)
        ),
    }
    classed = bool((labels >= 0).all())  # else distances within classes of samples would be those between classes
    pictures = {
        "generated": (images, generated, labels),
        "real": (real, of_real, train.labels[floor]),
        "held_out": (unseen, of_held_out, held_out.labels),
    }

    def measured(side: str) -> Measures:
        given, features, classes = pictures[side]
        spread = within_classes(features, classes) if classed else math.nan
        return _measures(given, features, reference, spread)

    found = Worth(
        generated=measured("generated"),
        real=measured("real"),
        held_out=measured("held_out"),
        judge=judge.held_out if judge else {},
        n=n,
        held_out_n=len(held_out),
        reference=len(rest),
        space=space.name,
        seed=seed,
    )
    if judge is not None:
        for side, (given, _, classes) in pictures.items():
            found = found.plus(side, **shares_recognised(judge, given, classes))
    for name, one in zip(("copies", "pixel_copies"), audits.values(), strict=True):
        rates = {"generated": one.rate, "real": one.rate_real, "held_out": one.rate_held_out}
        for side, rate in rates.items():
            found = found.plus(side, **{name: rate})
    return found, audits


def check_reference(n: int, train: int, held_out: int) -> None:
    """LabError unless there are pictures enough for a floor of n, a reference of as many, and a held-out side."""
    if held_out < LEAST_HELD_OUT:
        raise LabError(f"{held_out} held-out pictures: at least {LEAST_HELD_OUT} are needed to compare with")
    if train < 2 * n:
        raise LabError(f"n={n}: the floor takes {n} of {train} training pictures, and the rest must not be fewer")


def encoded_count(train: int, held_out: int, n: int) -> int:
    """How many pictures `worth` encodes in its space: mirrored training pictures count again."""
    return 2 * train + (train - n) + 2 * n + held_out


def floor_pictures(train: ImageSet, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the training pictures that play the samples (n,), and of the reference (N - n,)."""
    order = torch.randperm(len(train), generator=generator(seed, "floor"))
    return order[:n], order[n:]


def _views(train: ImageSet, space: FeatureSpace) -> Iterator[Tensor]:
    """(T, D), twice: the training pictures and their mirror images."""
    middle = train.margin // 2
    for flipped in (False, True):
        yield _encoded(train, space, middle, middle, flipped)


def _shifted_views(train: ImageSet, space: FeatureSpace) -> Iterator[Tensor]:
    """(T, D) of the crops at both ends and in the middle of the margin, across and down, and their mirror images."""
    places = sorted({0, train.margin // 2, train.margin})
    for top, left, flipped in product(places, places, (False, True)):
        yield _encoded(train, space, top, left, flipped)


def _encoded(train: ImageSet, space: FeatureSpace, top: int, left: int, flipped: bool) -> Tensor:
    """(T, D) of one crop of each picture, some pictures at a time."""
    features = []
    for chunk in torch.arange(len(train)).split(AT_A_TIME):
        at = (torch.full((len(chunk),), top), torch.full((len(chunk),), left), torch.full((len(chunk),), flipped))
        features.append(space(train.crop(chunk, Placement(*at))))
    return torch.cat(features)


def _measures(images: Tensor, features: Tensor, reference: Tensor, spread: float) -> Measures:
    """What can be told of any pictures; the rest NaN."""
    mean, error = kid(reference, features)
    return Measures(
        fid(reference, features),
        mean,
        error,
        *precision_recall(reference, features),
        *density_coverage(reference, features),
        top1=math.nan,
        top5=math.nan,
        diversity=spread,
        saturation=float(saturation(images).mean()),
        copies=math.nan,
        pixel_copies=math.nan,
    )


def shares_recognised(judge: Judge, images: Tensor, labels: Tensor) -> dict[str, float]:
    """{"top1", "top5"}: shares whose class the judge puts first, and among the first five; NaN without classes."""
    if bool((labels < 0).all()):
        return {"top1": math.nan, "top5": math.nan}
    first, five = recognised(judge.logits, images, labels)
    return {"top1": float(first.float().mean()), "top5": float(five.float().mean())}


def within_classes(features: Tensor, labels: Tensor) -> float:
    """Mean distance of two pictures of a class, over the classes that have two; NaN where none has."""
    groups = [features[labels == label] for label in labels.unique()]
    spread = [float(diversity(group[None])) for group in groups if len(group) > 1]
    return sum(spread) / len(spread) if spread else math.nan
