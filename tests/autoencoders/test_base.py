"""The protocol of autoencoders, and pixel space under it."""

from collections.abc import Callable

import pytest
import torch

from lab.autoencoders import Autoencoder, AutoencoderKL, AutoencoderVQ, Identity
from lab.errors import LabError

SMALL = {"channels": 16, "blocks": 1}
Make = Callable[..., Autoencoder]


def test_pixels_are_their_own_latents() -> None:
    images = torch.rand(2, 3, 8, 6) * 2 - 1
    autoencoder = Identity()
    assert torch.equal(autoencoder.encode(images), images)
    assert torch.equal(autoencoder.decode(autoencoder.encode(images)), images)
    assert torch.equal(autoencoder.latents(autoencoder.moments(images), torch.randn(2, 3, 8, 6)), images)
    assert autoencoder.bounded
    assert not list(autoencoder.parameters()) and not autoencoder.state_dict()
    with pytest.raises(LabError, match="nothing to train"):
        autoencoder.training_pass(images, images)


@pytest.mark.parametrize("make", [AutoencoderKL, AutoencoderVQ])
@pytest.mark.parametrize(("factor", "patch_size"), [(1, 1), (2, 1), (2, 4), (4, 2), (8, 2), (16, 2), (32, 4)])
def test_shapes_at_every_factor(make: Make, factor: int, patch_size: int) -> None:
    autoencoder = make(factor=factor, latent_channels=3, patch_size=patch_size, **SMALL)
    for height, width in ((32, 32), (32, 64), (96, 32)):
        latents = autoencoder.encode(torch.zeros(2, 3, height, width))
        assert latents.shape == (2, 3, height // factor, width // factor)
        assert autoencoder.decode(latents).shape == (2, 3, height, width)
    made = autoencoder.training_pass(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32 // factor, 32 // factor))
    assert made.images.shape == (2, 3, 32, 32) and made.penalty.shape == (2,)


@pytest.mark.parametrize("make", [AutoencoderKL, AutoencoderVQ])
@pytest.mark.parametrize("fill", ["constant", "random"])
def test_any_image_comes_back_finite_and_the_same_alone(make: Make, fill: str) -> None:
    torch.manual_seed(0)
    autoencoder = make(**SMALL).eval()
    images = torch.full((3, 3, 16, 16), 0.3) if fill == "constant" else torch.rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        back = autoencoder.decode(autoencoder.encode(images))
        assert bool(back.isfinite().all())
        alone = autoencoder.decode(autoencoder.encode(images[1:2]))
    torch.testing.assert_close(alone, back[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [AutoencoderKL, AutoencoderVQ])
def test_scaling_is_undone_by_decoding(make: Make) -> None:
    torch.manual_seed(0)
    autoencoder = make(**SMALL).eval()
    images = torch.rand(2, 3, 16, 16)
    plain, z = autoencoder.decode(autoencoder.encode(images)), autoencoder.encode(images)
    autoencoder.latent_mean.copy_(torch.tensor([1.0, -2, 3, 0]))
    autoencoder.latent_std.copy_(torch.tensor([2.0, 0.5, 1, 4]))
    scaled = autoencoder.encode(images)
    torch.testing.assert_close(scaled[:, 0], (z[:, 0] - 1) / 2)
    torch.testing.assert_close(scaled[:, 3], z[:, 3] / 4)
    torch.testing.assert_close(autoencoder.decode(scaled), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [AutoencoderKL, AutoencoderVQ])
def test_sizes_that_cannot_be_are_named(make: Make) -> None:
    with pytest.raises(LabError, match=r"size 10x16: the autoencoder takes multiples of 4"):
        make(**SMALL).encode(torch.zeros(1, 3, 10, 16))
    for wrong, words in (
        ({"factor": 3}, "autoencoder.factor=3: use 1, 2, 4"),
        ({"patch_size": 3}, "autoencoder.patch_size=3: use 1, 2, 4"),
        ({"channels": 0}, "autoencoder.channels=0"),
        ({"blocks": 0}, "blocks=0: use at least 1"),
        ({"multipliers": ()}, "multipliers"),
        ({"latent_channels": 0}, "autoencoder.latent_channels=0: use at least 1"),
    ):
        with pytest.raises(LabError, match=words):
            make(**{**SMALL, **wrong})
