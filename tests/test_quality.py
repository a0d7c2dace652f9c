"""Distances between images against their formulas."""

import pytest
import torch

from lab.quality import psnr, ssim


def test_psnr_is_its_formula() -> None:
    one = torch.zeros(2, 3, 4, 4)
    assert psnr(one, one + torch.tensor([0.2, 2.0]).view(2, 1, 1, 1)).tolist() == pytest.approx([20.0, 0.0], abs=1e-4)


def test_ssim_of_an_image_with_itself_is_one_and_falls_with_noise() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 16, 16, generator=draw) * 2 - 1
    assert ssim(images, images).tolist() == pytest.approx([1.0] * 3)
    noise = torch.randn(3, 3, 16, 16, generator=draw)
    levels = [ssim(images, images + level * noise) for level in (0.1, 0.3, 1.0)]
    assert bool((levels[0] > levels[1]).all()) and bool((levels[1] > levels[2]).all())
    assert levels[0].shape == (3,)


def test_ssim_of_two_constants_is_its_luminance_term() -> None:
    """Wang et al. 2004, eq. 6 with C1 = 0.01^2: what is left where nothing varies."""
    one, other = torch.full((1, 3, 16, 16), 0.0), torch.full((1, 3, 16, 16), 0.5)  # 0.5 and 0.75 of 1
    expected = (2 * 0.5 * 0.75 + 1e-4) / (0.5**2 + 0.75**2 + 1e-4)
    assert float(ssim(one, other)) == pytest.approx(expected, rel=1e-3)
