"""Pixel space: the identity under the protocol of autoencoders."""

import torch

from lab.autoencoders import Identity


def test_pixels_are_their_own_latents() -> None:
    images = torch.rand(2, 3, 8, 6) * 2 - 1
    autoencoder = Identity()
    assert torch.equal(autoencoder.encode(images), images)
    assert torch.equal(autoencoder.decode(autoencoder.encode(images)), images)


def test_it_says_what_latents_look_like() -> None:
    autoencoder = Identity()
    latents = autoencoder.encode(torch.zeros(2, 3, 8, 6))
    assert latents.shape == (2, autoencoder.latent_channels, 8 // autoencoder.factor, 6 // autoencoder.factor)
    assert autoencoder.bounded
    assert not list(autoencoder.parameters()) and not autoencoder.state_dict()
