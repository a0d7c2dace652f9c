"""Real pictures are worth as much as the floor, and others less."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lab.data import ImageSet
from lab.errors import LabError
from lab.evaluation import FeatureSpace
from lab.evaluation.worth import shares_recognised, within_classes, worth
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
    found, audit = worth(others.pixels, others.labels, train, held_out, judge, SPACE)
    assert (found.n, found.reference, found.space) == (90, 210, "small")
    assert found.generated.fid == pytest.approx(found.real.fid, rel=0.6)
    assert abs(found.generated.kid) < 5 * found.generated.kid_error
    assert found.generated.precision == pytest.approx(found.real.precision, abs=0.15)
    assert found.generated.top1 == found.real.top1 == 1.0
    assert found.generated.saturation == pytest.approx(found.real.saturation, rel=0.05)
    assert found.generated.copies < 0.1 and len(audit.distances) == 90


def test_wrong_pictures_are_worth_less(judge: Judge) -> None:
    train, held_out, others = coloured(300, 0), coloured(60, 1), coloured(90, 2)
    grey = torch.full_like(others.pixels, 120) + torch.randint(0, 9, others.pixels.shape, dtype=torch.uint8)
    found, _ = worth(grey, others.labels, train, held_out, judge, SPACE)
    assert found.generated.fid > 5 * found.real.fid
    assert found.generated.kid > 10 * found.generated.kid_error
    assert found.generated.recall == 0 and found.real.recall > 0.5
    assert found.generated.diversity < 0.2 * found.real.diversity
    assert found.generated.saturation < 0.5 * found.real.saturation


def test_planted_copies_are_counted(judge: Judge) -> None:
    train, held_out, others = coloured(300, 0), coloured(60, 1), coloured(90, 2)
    pixels = others.pixels.clone()
    pixels[:45] = train.pixels[:45]
    pixels[45:50] = train.pixels[45:50].flip(2)  # mirrored
    found, audit = worth(pixels, others.labels, train, held_out, judge, SPACE)
    assert audit.neighbours[:50].tolist() == list(range(50)) and bool(audit.copies[:50].all())
    assert found.generated.copies == pytest.approx(50 / 90, abs=0.05)


def test_more_pictures_than_leave_a_reference_are_refused(judge: Judge) -> None:
    train = coloured(30, 0)
    with pytest.raises(LabError, match="n=20: the floor takes 20 of 30"):
        worth(train.pixels[:20], train.labels[:20], train, train, judge, SPACE)


def test_without_classes_there_is_nothing_to_recognise(judge: Judge) -> None:
    images, none = torch.zeros(4, 3, 8, 8), torch.full((4,), -1)
    assert all(value != value for value in shares_recognised(judge, images, none))


def test_distances_are_taken_within_classes() -> None:
    features = torch.tensor([[0.0], [0.4], [5.0], [9.0], [9.2]])
    assert within_classes(features, torch.tensor([0, 0, 1, 2, 2])) == pytest.approx(0.3)
    assert within_classes(features[:2], torch.tensor([0, 1])) != within_classes(features[:2], torch.tensor([0, 0]))
