"""A variational autoencoder with a diagonal Gaussian posterior, held in place by a little KL divergence."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lab.autoencoders.base import Autoencoder, Pass
from lab.autoencoders.networks import Decoder, Encoder, widths
from lab.errors import LabError

LOG_VARIANCES = (-30.0, 20.0)  # beyond these exp has nothing sensible to say


def kl_divergence(moments: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) (B,), summed over a latent's values, of moments (B, 2C, h, w).

    Kingma & Welling 2014, appendix B: (mean^2 + variance - 1 - log variance) / 2.
    """
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(*LOG_VARIANCES)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3))


class AutoencoderKL(Autoencoder):
    """Moments are mean and log variance (B, 2C, h, w). Rombach et al. 2022, appendix G.

    factor        1, 2, 4, ... 32: a door of patch_size, as far as the factor allows, then halvings
    channels, multipliers   width of each level, largest first; the last repeats where there are more levels
    blocks        residual blocks a level
    attention     whether places see each other at the smallest resolution
    kl_weight     of the divergence against the absolute error, both summed over an image
    Raises LabError for sizes that cannot be.
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
        super().__init__(latent_channels, factor)
        door = min(patch_size, factor)
        sizes = widths(factor, door, channels, multipliers, blocks)
        if kl_weight < 0:
            raise LabError(f"autoencoder.kl_weight={kl_weight}: use 0 or more")
        self.kl_weight = kl_weight
        self.encoder = Encoder(sizes, door, blocks, 2 * latent_channels, attention)
        self.decoder = Decoder(sizes, door, blocks, latent_channels, attention)

    def moments(self, images: Tensor) -> Tensor:
        self.check_size(*images.shape[2:])
        out: Tensor = self.encoder(images)
        return out.float()

    def draw(self, moments: Tensor, eps: Tensor | None = None) -> Tensor:
        mean, log_variance = moments.chunk(2, dim=1)
        return mean if eps is None else mean + eps * torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCES))

    def reconstruct(self, z: Tensor) -> Tensor:
        out: Tensor = self.decoder(z.contiguous(memory_format=torch.channels_last))
        return out.float()

    def training_pass(self, images: Tensor, eps: Tensor) -> Pass:
        moments = self.moments(images)
        kl = kl_divergence(moments)
        penalty = self.kl_weight * kl / images[0].numel()
        return Pass(self.reconstruct(self.draw(moments, eps)), penalty, {"kl": kl.detach()})
