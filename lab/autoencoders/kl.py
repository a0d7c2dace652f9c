"""A variational autoencoder with a diagonal Gaussian posterior, held in place by a little KL divergence."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lab.autoencoders.base import Pass
from lab.autoencoders.networks import ConvolutionalAutoencoder
from lab.errors import LabError

LOG_VARIANCES = (-30.0, 20.0)  # beyond these exp has nothing sensible to say


def kl_divergence(moments: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) (B,), summed over a latent's values, of moments (B, 2C, h, w).

    Kingma & Welling 2014, appendix B: (mean^2 + variance - 1 - log variance) / 2.
    """
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(*LOG_VARIANCES)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3))


class AutoencoderKL(ConvolutionalAutoencoder):
    """Moments are mean and log variance (B, 2C, h, w). Rombach et al. 2022, appendix G.

    kl_weight     of the divergence against the absolute error, both summed over an image
    The rest as in ConvolutionalAutoencoder. Raises LabError for sizes that cannot be.
    """

    stochastic = True

    def __init__(
        self,
        factor: int = 4,
        latent_channels: int = 4,
        patch_size: int = 2,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2, 3),
        blocks: int = 2,
        attention: bool = True,
        kl_weight: float = 1e-6,
    ) -> None:
        shape = (patch_size, channels, multipliers, blocks, attention)
        super().__init__(factor, latent_channels, 2 * latent_channels, *shape)
        if kl_weight < 0:
            raise LabError(f"autoencoder.kl_weight={kl_weight}: use 0 or more")
        self.kl_weight = kl_weight

    def draw(self, moments: Tensor, eps: Tensor | None = None) -> Tensor:
        mean, log_variance = moments.chunk(2, dim=1)
        return mean if eps is None else mean + eps * torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCES))

    def reconstruct(self, z: Tensor) -> Tensor:
        return self._decoded(z)

    def training_pass(self, images: Tensor, eps: Tensor) -> Pass:
        moments = self.moments(images)
        kl = kl_divergence(moments)
        penalty = self.kl_weight * kl / images[0].numel()
        return Pass(self.reconstruct(self.draw(moments, eps)), penalty, {"kl": kl.detach()})
