"""Where diffusion happens: in pixels (`Identity`), or in the latents of an autoencoder. One protocol."""

from torch import Tensor, nn


class Identity(nn.Module):
    """Pixel space: latents are the images in [-1, 1].

    latent_channels   channels of a latent
    factor            how much smaller a latent's sides are than the image's
    bounded           latents lie in [-1, 1], so predicted x0 may be thresholded
    """

    latent_channels, factor, bounded = 3, 1, True

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> latents (B, 3, H, W)."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, 3, H, W) -> images (B, 3, H, W), nominally in [-1, 1]."""
        return latents
