"""Counting how often a class comes first, and among the first five."""

import torch

from lab.judging import recognised


def test_first_and_among_five_are_told_of_each_picture() -> None:
    """Every picture's brightness is the class that is liked best; classes are liked less the farther from it."""
    images = torch.tensor([0.0, 3.0, 5.0])[:, None, None, None].expand(3, 3, 2, 2)

    def scores(some: torch.Tensor) -> torch.Tensor:
        return -(some.mean(dim=(1, 2, 3))[:, None] - torch.arange(8)).abs()

    first, five = recognised(scores, images, [0, 5, 0])
    assert first.tolist() == [True, False, False] and five.tolist() == [True, True, False]


def test_batches_and_few_classes_change_nothing() -> None:
    images = torch.zeros(300, 3, 2, 2)
    images[::2] = 1

    def scores(some: torch.Tensor) -> torch.Tensor:
        bright = some.mean(dim=(1, 2, 3))
        return torch.stack([1 - bright, bright], dim=1)

    first, five = recognised(scores, images, torch.ones(300, dtype=torch.long))
    assert first.tolist() == [True, False] * 150 and bool(five.all())
