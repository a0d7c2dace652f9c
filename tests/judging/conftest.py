"""Discs of one colour, each colour a class: what a classifier learns in a moment."""

from collections.abc import Callable

import pytest
import torch

from lab.data import ImageSet

COLOURS = {"red": (220, 30, 30), "yellow": (240, 210, 20), "blue": (40, 60, 220), "white": (240, 240, 240)}
MakeDiscs = Callable[[int, int], ImageSet]


def discs(each: int, seed: int) -> ImageSet:
    """`each` pictures of 32 px of every colour, of several sizes, on noisy green."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(COLOURS)).repeat(each)
    pixels = torch.randint(40, 90, (len(labels), 32, 32, 3), generator=draw)
    pixels[..., 1] += 60
    place = torch.arange(32) - 15.5
    radius = (place[:, None].square() + place[None].square()).sqrt()
    sizes = 6 + 6 * torch.rand(len(labels), generator=draw)
    inside = radius[None] < sizes[:, None, None]
    colours = torch.tensor(list(COLOURS.values()))[labels]
    pixels = torch.where(inside[..., None], colours[:, None, None], pixels).to(torch.uint8)
    return ImageSet("discs", pixels, labels, tuple(COLOURS), 32, (), (), f"{seed:016d}")


@pytest.fixture
def make_discs() -> MakeDiscs:
    """`discs` above: make_discs(each, seed)."""
    return discs
