"""Real pictures are worth as much as the floor, and others less."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lab.data import ImageSet
from lab.errors import LabError
from lab.evaluation import FeatureSpace
from lab.evaluation.worth import encoded_count, floor_pictures, shares_recognised, within_classes, worth
from lab.judging import Judge, JudgeNetwork

MakeSet = Callable[[int, int], ImageSet]


class ByColour(JudgeNetwork):
    """Classes are told apart by the mean colour: 0 red, 1 green, 2 blue."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def coloured(count: int, seed: int) -> ImageSet:
    """Noise with more of one colour each."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    pixels = torch.randint(0, 160, (count, 8, 8, 3), generator=draw)
    pixels[torch.arange(count), :, :, labels] += 90
    return ImageSet("coloured", pixels.to(torch.uint8), labels, ("red", "green", "blue"), 8, (), (), str(seed))


SPACE = FeatureSpace("small", lambda images: torch.nn.functional.avg_pool2d(images, 4).flatten(1))
NOTE = {"held_out": {"top1": 1.0, "top5": 1.0, "images": 60}}


@pytest.fixture
def judge() -> Judge:
    return Judge(ByColour(3), ("red", "green", "blue"), 8, NOTE)


def test_real_pictures_are_worth_the_floor(judge: Judge) -> None:
    train, held_out, others = coloured(300, 0), coloured(60, 1), coloured(90, 2)
    found, audits = worth(others.pixels, others.labels, train, held_out, judge, SPACE)
    assert (found.n, found.reference, found.space) == (90, 210, "small")
    assert found.generated.fid == pytest.approx(found.real.fid, rel=0.6)
    assert abs(found.generated.kid) < 5 * found.generated.kid_error
    assert found.generated.precision == pytest.approx(found.real.precision, abs=0.15)
    assert found.generated.top1 == found.held_out.top1 == found.real.top1 == 1.0
    assert found.held_out_n == 60 and found.held_out.kid == pytest.approx(0, abs=5 * found.held_out.kid_error)
    assert found.generated.saturation == pytest.approx(found.real.saturation, rel=0.05)
    assert list(audits) == ["small", "pixels 16x16"] and all(len(one.distances) == 90 for one in audits.values())
    assert found.generated.copies < 0.1 and found.generated.pixel_copies < 0.1
    assert found.real.copies < 0.1 and found.real.pixel_copies < 0.1  # each beside all others
    assert found.held_out.copies < 0.25 and found.held_out.pixel_copies < 0.25  # of 30 by the least of 30


def test_wrong_pictures_are_worth_less(judge: Judge) -> None:
    train, held_out, others = coloured(300, 0), coloured(60, 1), coloured(90, 2)
    grey = torch.full_like(others.pixels, 120) + torch.randint(0, 9, others.pixels.shape, dtype=torch.uint8)
    found, _ = worth(grey, others.labels, train, held_out, judge, SPACE)
    assert found.generated.fid > 5 * found.real.fid
    assert found.generated.kid > 10 * found.generated.kid_error
    assert found.generated.recall == 0 and found.real.recall > 0.5
    assert found.generated.diversity < 0.2 * found.real.diversity
    assert found.generated.saturation < 0.5 * found.real.saturation


def test_so_many_pictures_are_encoded_as_the_time_is_told_by(judge: Judge) -> None:
    train, held_out, others = coloured(300, 0), coloured(60, 1), coloured(90, 2)
    seen: list[int] = []

    def encode(images: Tensor) -> Tensor:
        seen.append(len(images))
        return SPACE.encode(images)

    worth(others.pixels, others.labels, train, held_out, judge, FeatureSpace("small", encode))
    assert sum(seen) == encoded_count(300, 60, 90)


def test_planted_copies_are_counted(judge: Judge) -> None:
    train, held_out, others = coloured(300, 0), coloured(60, 1), coloured(90, 2)
    pixels = others.pixels.clone()
    pixels[:45] = train.pixels[:45]
    pixels[45:50] = train.pixels[45:50].flip(2)  # mirrored
    found, audits = worth(pixels, others.labels, train, held_out, judge, SPACE)
    assert found.real.pixel_copies < 0.1  # though the samples hold some of them
    train.pixels[150:] = train.pixels[:150]  # each picture twice
    repeated, _ = worth(pixels, others.labels, train, held_out, judge, SPACE)
    assert repeated.real.copies == repeated.real.pixel_copies == 1
    for audit in audits.values():
        assert audit.neighbours[:50].tolist() == list(range(50)) and bool(audit.copies[:50].all())
    assert found.generated.copies == pytest.approx(50 / 90, abs=0.05)
    assert found.generated.pixel_copies == pytest.approx(50 / 90, abs=0.05)


def test_copies_of_other_crops_are_found_by_their_pixels(judge: Judge) -> None:
    """Training takes random crops of pictures that are larger: a copy may be one of any."""
    held_out, others = coloured(60, 1), coloured(90, 2)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (300, 12, 12, 3), generator=draw, dtype=torch.uint8)
    train = ImageSet("larger", pixels, coloured(300, 0).labels, judge.class_names, 8, (), (), "0")
    samples = others.pixels.clone()
    samples[:20], samples[20:40] = pixels[:20, :8, 4:], pixels[20:40, 2:10, :8].flip(2)
    found, audits = worth(samples, others.labels, train, held_out, judge, SPACE)
    audit = audits["pixels 16x16"]
    assert audit.neighbours[:40].tolist() == list(range(40)) and float(audit.distances[:40].max()) < 1e-3
    assert bool(audit.copies[:40].all()) and found.generated.pixel_copies < 0.5


def test_floors_fall_with_n(judge: Judge) -> None:
    """Distances between as many pictures: of fewer they are larger, though all are real."""
    train, held_out = coloured(900, 0), coloured(60, 1)

    def floors(n: int) -> tuple[float, float]:
        """FID and KID's error of real pictures, over three ways to choose them."""
        found = []
        for seed in range(3):
            labels = train.labels[floor_pictures(train, n, seed)[0]]
            found.append(worth(coloured(n, 2).pixels, labels, train, held_out, judge, SPACE, seed)[0].real)
        return sum(one.fid for one in found) / 3, sum(one.kid_error for one in found) / 3

    fids, errors = zip(*(floors(n) for n in (20, 80, 320)), strict=True)
    assert fids[0] > fids[1] > fids[2] > 0 and errors[0] > errors[1] > errors[2] > 0


def test_a_run_without_classes_is_not_taken_for_one_large_class() -> None:
    train, held_out, others = coloured(300, 0), coloured(60, 1), coloured(90, 2)
    found, _ = worth(others.pixels, torch.full((90,), -1), train, held_out, None, SPACE)
    facts = found.facts()
    assert facts["judge"] == {} and facts["generated"]["diversity"] is facts["real"]["diversity"] is None
    assert facts["generated"]["top1"] is None and facts["generated"]["fid"] > 0


def test_more_pictures_than_leave_a_reference_are_refused(judge: Judge) -> None:
    train = coloured(30, 0)
    with pytest.raises(LabError, match="n=20: the floor takes 20 of 30"):
        worth(train.pixels[:20], train.labels[:20], train, train, judge, SPACE)


def test_without_classes_there_is_nothing_to_recognise(judge: Judge) -> None:
    images, none = torch.zeros(4, 3, 8, 8), torch.full((4,), -1)
    assert all(value != value for value in shares_recognised(judge, images, none).values())


def test_distances_are_taken_within_classes() -> None:
    features = torch.tensor([[0.0], [0.4], [5.0], [9.0], [9.2]])
    assert within_classes(features, torch.tensor([0, 0, 1, 2, 2])) == pytest.approx(0.3)
    assert within_classes(features[:2], torch.tensor([0, 0])) == pytest.approx(0.4)
    assert math.isnan(within_classes(features[:2], torch.tensor([0, 1])))
