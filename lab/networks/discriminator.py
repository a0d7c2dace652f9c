"""Tells real patches from reconstructed ones."""

import torch.nn.functional as F
from torch import Tensor, nn

POSES = 8  # of a square


class PatchDiscriminator(nn.Sequential):
    """Images (B, 3, H, W) -> a logit for each overlapping patch (B, 1, h, w): high is real.

    Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", section 3.2.2, with group
    normalisation, which knows nothing of the batch.

    layers   strided convolutions; each doubles what a patch covers, and `stride`, the pixels between patches
    """

    def __init__(self, channels: int = 48, layers: int = 3) -> None:
        stages: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for layer in range(1, layers + 1):
            wider, stride = min(2 * width, 4 * channels), 2 if layer < layers else 1
            convolution = nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False)
            stages += [convolution, nn.GroupNorm(8, wider), nn.LeakyReLU(0.2)]
            width = wider
        super().__init__(*stages, nn.Conv2d(width, 1, 4, padding=1))
        self.stride = 2**layers


def posed(pictures: Tensor, roll: tuple[int, int], pose: int) -> Tensor:
    """Pictures (B, 3, H, W) as a discriminator is to see them: rolled by (down, right) pixels, in one of `POSES` poses.

    A pose is a number of quarter turns, and from 4 on a mirror image. Real and reconstructed pictures are shown alike,
    and gradients go through (Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training").
    """
    turned = pictures.roll(roll, dims=(2, 3)).rot90(pose % 4, dims=(2, 3))
    return turned.flip(3) if pose >= 4 else turned


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Loss (B,) of a discriminator with these logits (B, 1, h, w) (Lim & Ye 2017, "Geometric GAN")."""
    return 0.5 * (F.relu(1 - real) + F.relu(1 + fake)).mean(dim=(1, 2, 3))
