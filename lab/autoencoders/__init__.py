"""Where diffusion happens: in pixels, or in the latents of an autoencoder. One protocol."""

from lab.autoencoders.base import Autoencoder, Identity
from lab.autoencoders.kl import AutoencoderKL
from lab.autoencoders.vq import AutoencoderVQ

__all__ = ["Autoencoder", "AutoencoderKL", "AutoencoderVQ", "Identity"]
