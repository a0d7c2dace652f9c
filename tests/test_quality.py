"""Distances between images against their formulas."""

import pytest
import torch

from lab.quality import diversity, edge_energy, psnr, saturation, ssim


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


def test_saturation_is_that_of_hsv() -> None:
    colours = torch.tensor([[1.0, -1, -1], [0, 0, 0], [1.0, 0, -1], [1, 0, 0], [-1, -1, -1]])  # red, greys, orange, ...
    images = colours[:, :, None, None].expand(-1, -1, 4, 4)
    assert saturation(images).tolist() == pytest.approx([1, 0, 1, 0.5, 0])


def test_edge_energy_is_the_slope_of_a_ramp_and_grows_with_contrast() -> None:
    ramp = (0.1 * torch.arange(8.0) - 0.4).expand(1, 3, 8, 8)
    assert float(edge_energy(ramp)) == pytest.approx(0.1)
    assert edge_energy(torch.cat([ramp * 0, ramp, 2 * ramp.mT])).tolist() == pytest.approx([0, 0.1, 0.2], abs=1e-6)


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    levels = torch.tensor([[0.0, 0.3, 0.9], [0.5, 0.5, 0.5]])  # pairs differ by 0.3, 0.6, 0.9
    images = levels[:, :, None, None, None].expand(2, 3, 3, 4, 4)
    assert diversity(images).tolist() == pytest.approx([0.6, 0.0], abs=1e-6)
    assert bool(diversity(images[:, :1]).isnan().all())
