"""Predicted pictures are brought back into range without touching those that are in it."""

import pytest
import torch
from torch import Tensor

from lab.diffusion import THRESHOLDINGS
from lab.diffusion.thresholding import clip_fraction, dynamic, static


def pictures(size: float) -> Tensor:
    return size * torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", list(THRESHOLDINGS))
def test_what_is_in_range_stays(name: str) -> None:
    inside = pictures(0.1)
    assert torch.equal(THRESHOLDINGS[name](inside), inside)


def test_static_clips_each_pixel_at_one() -> None:
    assert static(torch.tensor([[-3.0, -1.0, 0.4, 1.5]])).tolist() == [pytest.approx([-1.0, -1.0, 0.4, 1.0])]


def test_dynamic_divides_by_the_value_that_the_share_stays_below() -> None:
    """Of 1, 2, ... 100, 90 % are at most 90: above it all are 1, below it a ninetieth each."""
    values = torch.arange(1.0, 101.0, dtype=torch.float64).view(1, 1, 10, 10)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(50).view(1, 1, 10, 10)
    held = dynamic(values * signs, share=0.9)
    torch.testing.assert_close(held, signs * (values / 90).clamp(max=1))


def test_dynamic_looks_at_each_sample_alone() -> None:
    mixed = pictures(1.0) * torch.tensor([0.1, 3.0, 30.0]).view(3, 1, 1, 1)
    together = dynamic(mixed)
    for i in range(3):
        assert torch.equal(together[i : i + 1], dynamic(mixed[i : i + 1]))
    assert float(together.abs().max()) <= 1
    assert float(together[1].std()) == pytest.approx(1 / 2.8, rel=0.1)  # 99.5 % of a unit normal lie below 2.81


def test_clip_fraction_is_a_samples_share_outside() -> None:
    assert clip_fraction(torch.tensor([[-3.0, -1.0, 0.4, 1.5], [0.0, 0, 0, 1]])).tolist() == [0.5, 0.0]
