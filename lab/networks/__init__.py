"""Networks: built from plain arguments, ignorant of diffusion's formulas, of files and of configuration."""

from lab.networks.unet import UNet

__all__ = ["UNet"]
