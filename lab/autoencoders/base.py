"""The protocol of autoencoders, and pixel space under it."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lab.errors import LabError


class Pass(NamedTuple):
    """One pass through an autoencoder in training."""

    images: Tensor  # (B, 3, H, W), reconstructed
    penalty: Tensor  # (B,), weighted: what the latents cost, a mean over an image's values
    facts: dict[str, Tensor]  # for the log


class Autoencoder(nn.Module, ABC):
    """Images to smaller latents and back.

    An image's `moments` are all that is known of its latents before one is drawn, and what caches hold. Latents are
    scaled by `latent_mean` and `latent_std` (C,), statistics over a whole set that go where the weights go: see
    `lab.latents`. Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models".

    latent_channels   channels of a latent
    factor            how much smaller a latent's sides are than the image's
    bounded           latents lie in [-1, 1], so predicted x0 may be thresholded
    """

    latent_channels: int
    factor: int
    bounded: bool = False
    stochastic: bool = False  # whether a latent is drawn around its mean
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, latent_channels: int, factor: int) -> None:
        super().__init__()
        if latent_channels < 1:
            raise LabError(f"autoencoder.latent_channels={latent_channels}: use at least 1")
        self.latent_channels, self.factor = latent_channels, factor
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    @abstractmethod
    def moments(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> (B, M, H / factor, W / factor); LabError for sides it cannot divide."""

    @abstractmethod
    def draw(self, moments: Tensor, eps: Tensor | None = None) -> Tensor:
        """Latents (B, C, h, w) as the decoder takes them: the mean, or with unit noise `eps` one around it."""

    @abstractmethod
    def reconstruct(self, z: Tensor) -> Tensor:
        """What `draw` gave, to images (B, 3, H, W), nominally in [-1, 1]."""

    @abstractmethod
    def training_pass(self, images: Tensor, eps: Tensor) -> Pass:
        """Images (B, 3, H, W) there and back, with noise eps (B, C, h, w) for whoever draws."""

    def latents(self, moments: Tensor, eps: Tensor | None = None) -> Tensor:
        """`draw`, scaled to zero mean and unit variance a channel: what diffusion works on."""
        return (self.draw(moments, eps) - _each(self.latent_mean)) / _each(self.latent_std)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scaled latents (B, C, h, w), the mean of each."""
        return self.latents(self.moments(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> images (B, 3, H, W), nominally in [-1, 1]."""
        return self.reconstruct(latents * _each(self.latent_std) + _each(self.latent_mean))

    def check_size(self, height: int, width: int) -> None:
        """LabError unless both sides are multiples of the factor."""
        if height % self.factor or width % self.factor:
            raise LabError(f"size {height}x{width}: the autoencoder takes multiples of {self.factor}")


class Identity(Autoencoder):
    """Pixel space: latents are the images in [-1, 1]."""

    latent_channels, factor, bounded = 3, 1, True

    def __init__(self) -> None:
        nn.Module.__init__(self)  # no statistics: pixels have their range

    def moments(self, images: Tensor) -> Tensor:
        return images

    def draw(self, moments: Tensor, eps: Tensor | None = None) -> Tensor:
        return moments

    def reconstruct(self, z: Tensor) -> Tensor:
        return z

    def training_pass(self, images: Tensor, eps: Tensor) -> Pass:
        raise LabError("autoencoder=identity: there is nothing to train; use autoencoder=kl or vq")

    def latents(self, moments: Tensor, eps: Tensor | None = None) -> Tensor:
        return moments

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def _each(channels: Tensor) -> Tensor:
    """(C,) to (C, 1, 1), a number for each channel."""
    return channels[:, None, None]
