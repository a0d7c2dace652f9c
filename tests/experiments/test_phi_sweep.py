"""What is told of rescaled guidance, of a sweep that is made up."""

import math

import pytest
import torch
from torch import Tensor

from experiments.phi_sweep import ratio_of, told
from experiments.sweeps import Swept

VALUES = [-2.0, 0.0, 3.0]


def swept(ratio: list[float]) -> Swept:
    """Pictures whose edges are strongest at phi 3, and r by evaluation at phi 0; elsewhere it is another."""
    board = (torch.arange(64).view(8, 8) + torch.arange(8)[:, None]) % 2 * 2.0 - 1
    images = torch.stack([board * strength for strength in (0.2, 0.5, 0.9)])[:, None, None, None].expand(
        3, 1, 2, 3, 8, 8
    )
    ratios = torch.tensor([[2 * r for r in ratio], ratio, [3 * r for r in ratio]])[:, None, None].repeat(1, 1, 2, 1)
    ratios[1, 0, 0] += 0.1  # one picture more, the other less
    ratios[1, 0, 1] -= 0.1
    nothing = torch.full((3, 1, 2), math.nan)
    return Swept(VALUES, images, nothing, ratios, 1 + torch.tensor(VALUES)[:, None, None, None] * (ratios - 1))


def test_r_is_that_of_phi_0() -> None:
    torch.testing.assert_close(ratio_of(swept([0.25, 0.5, 0.8])), torch.tensor([0.25, 0.5, 0.8]))


@pytest.mark.parametrize(
    ("ratio", "prediction_type", "expected", "explained"),
    [
        ([0.25, 0.5, 0.8], "v", "r lies between 0.25 and 0.80 on the way; the gain would vanish at phi = 1.3", True),
        ([0.25, 0.5, 0.8], "eps", "the gain would vanish at phi = 1.3", False),  # as the article's
        ([0.8, 0.5, 0.9], "v", "the gain would vanish at phi = 2.0", False),  # smallest on the way, not at its start
        ([1.2, 1.5], "v", "r lies between 1.20 and 1.50 on the way.", False),
    ],
)
def test_it_tells_where_the_gain_vanishes_and_why(
    ratio: list[float], prediction_type: str, expected: str, explained: bool
) -> None:
    text = told(swept(ratio), prediction_type)
    assert expected in text and "Outlines are strongest at phi = 3." in text
    assert (f"This one predicts {prediction_type}" in text) is explained


def test_where_one_branch_was_enough_nothing_is_known() -> None:
    found = swept([0.5])
    unknown: Tensor = torch.full_like(found.ratio, math.nan)
    assert "r is not known" in told(Swept(VALUES, found.images, found.clip_fraction, unknown, unknown), "v")
