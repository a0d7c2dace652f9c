"""The Gaussian posterior against closed forms."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lab.autoencoders import AutoencoderKL
from lab.autoencoders import kl as module


def moments(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_the_divergence_is_torchs() -> None:
    given = moments(5, 8, 3, 2)
    mean, log_variance = given.chunk(2, dim=1)
    theirs = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(module.kl_divergence(given), theirs)


def test_the_divergence_vanishes_at_the_unit_gaussian_alone() -> None:
    unit = torch.zeros(1, 8, 2, 2)
    assert float(module.kl_divergence(unit)) == 0
    for index in ((0, 0, 0, 0), (0, 5, 1, 1)):
        off = unit.clone()
        off[index] = 0.1
        assert float(module.kl_divergence(off)) > 0


def test_draws_have_the_moments_they_are_drawn_from() -> None:
    autoencoder = AutoencoderKL(channels=16, blocks=1)
    given = moments(1, 8, 2, 2).expand(20_000, -1, -1, -1)
    drawn = autoencoder.draw(given, torch.randn(20_000, 4, 2, 2, generator=torch.Generator().manual_seed(1)))
    mean, log_variance = given[0].chunk(2)
    torch.testing.assert_close(drawn.mean(dim=0), mean, rtol=0, atol=0.1)
    torch.testing.assert_close(drawn.var(dim=0), log_variance.exp(), rtol=0.1, atol=0)
    assert torch.equal(autoencoder.draw(given), given[:, :4])


def test_absurd_variances_stay_finite() -> None:
    absurd = torch.cat([torch.zeros(1, 4, 1, 1), torch.tensor([-1e6, 1e6, 0, 0]).view(1, 4, 1, 1)], dim=1)
    assert bool(module.kl_divergence(absurd).isfinite().all())
    assert bool(AutoencoderKL(channels=16, blocks=1).draw(absurd, torch.ones(1, 4, 1, 1)).isfinite().all())


def test_the_penalty_is_the_weighted_divergence_a_pixel() -> None:
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(channels=16, blocks=1, kl_weight=1e-3)
    images = torch.rand(2, 3, 16, 16)
    made = autoencoder.training_pass(images, torch.zeros(2, 4, 4, 4))
    torch.testing.assert_close(made.facts["kl"], module.kl_divergence(autoencoder.moments(images)))
    assert made.penalty.tolist() == pytest.approx((made.facts["kl"] * 1e-3 / (3 * 16 * 16)).tolist())
    torch.testing.assert_close(made.images, autoencoder.decode(autoencoder.encode(images)))
