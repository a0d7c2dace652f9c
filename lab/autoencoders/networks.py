"""Encoder and decoder: residual blocks between images and latents, with attention where they are smallest."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.autoencoders.base import Autoencoder
from lab.errors import LabError
from lab.networks.attention import FullAttention
from lab.networks.layers import norm, zero_

HEAD_DIM = 64


def widths(factor: int, patch_size: int, channels: int, multipliers: Sequence[int], blocks: int) -> list[int]:
    """Channels of each level, largest resolution first; where the factor asks for more levels the last repeats.

    Raises LabError for a factor that door and halvings cannot make.
    """
    for key, size in (("factor", factor), ("patch_size", patch_size)):
        if size < 1 or size.bit_count() != 1:
            raise LabError(f"autoencoder.{key}={size}: use 1, 2, 4, 8, 16 or 32")
    if min(channels, blocks, *multipliers) < 1 or not multipliers:
        sizes = f"autoencoder.channels={channels}, multipliers={list(multipliers)}, blocks={blocks}"
        raise LabError(f"{sizes}: use at least 1")
    levels = (factor // patch_size).bit_length()
    return [channels * multipliers[min(level, len(multipliers) - 1)] for level in range(levels)]


class Block(nn.Module):
    """Norm, SiLU and a 3x3 convolution, twice, beside a skip; it starts as the skip."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(in_channels), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2, self.conv2 = norm(out_channels), zero_(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C_in, H, W) -> (B, C_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = self.skip(x) + self.conv2(F.silu(self.norm2(h)))
        return out


def middle(width: int, attention: bool) -> nn.Sequential:
    """Two blocks at the smallest resolution, with attention between them."""
    heads = next(h for h in range(max(1, width // HEAD_DIM), 0, -1) if width % h == 0)
    mixing = [FullAttention(width, width // heads)] if attention else []
    return nn.Sequential(Block(width, width), *mixing, Block(width, width))


class Encoder(nn.Sequential):
    """Images (B, 3, H, W) -> (B, out_channels, H / factor, W / factor), through a space-to-depth door."""

    def __init__(self, sizes: Sequence[int], patch_size: int, blocks: int, out_channels: int, attention: bool) -> None:
        layers: list[nn.Module] = [nn.PixelUnshuffle(patch_size), nn.Conv2d(3 * patch_size**2, sizes[0], 3, padding=1)]
        before = sizes[0]
        for level, width in enumerate(sizes):
            if level:
                layers.append(nn.Conv2d(before, before, 3, stride=2, padding=1))
            layers += [Block(before if block == 0 else width, width) for block in range(blocks)]
            before = width
        ending = (norm(before), nn.SiLU(), nn.Conv2d(before, out_channels, 3, padding=1))
        super().__init__(*layers, middle(before, attention), *ending)


class Decoder(nn.Sequential):
    """Latents (B, in_channels, h, w) -> images (B, 3, h * factor, w * factor), the encoder mirrored."""

    def __init__(self, sizes: Sequence[int], patch_size: int, blocks: int, in_channels: int, attention: bool) -> None:
        before = sizes[-1]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, before, 3, padding=1), middle(before, attention)]
        for level, width in reversed(list(enumerate(sizes))):
            layers += [Block(before if block == 0 else width, width) for block in range(blocks)]
            before = width
            if level:
                layers += [nn.Upsample(scale_factor=2.0, mode="nearest"), nn.Conv2d(width, width, 3, padding=1)]
        last = nn.Conv2d(before, 3 * patch_size**2, 3, padding=1)
        super().__init__(*layers, norm(before), nn.SiLU(), last, nn.PixelShuffle(patch_size))

    @property
    def last_weight(self) -> Tensor:
        """Of the convolution that makes the pixels: where losses are weighed against each other."""
        convolution = self[-2]
        assert isinstance(convolution, nn.Conv2d)
        return convolution.weight


class ConvolutionalAutoencoder(Autoencoder):
    """An encoder and a decoder; moments (B, moment_channels, h, w) are what the encoder puts out.

    factor        1, 2, 4, ... 32: a door of patch_size, as far as the factor allows, then halvings
    channels, multipliers   width of each level, largest first; the last repeats where there are more levels
    blocks        residual blocks a level
    attention     whether places see each other at the smallest resolution
    Raises LabError for sizes that cannot be.
    """

    def __init__(
        self,
        factor: int,
        latent_channels: int,
        moment_channels: int,
        patch_size: int,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: bool,
    ) -> None:
        super().__init__(latent_channels, factor)
        door = min(patch_size, factor)
        sizes = widths(factor, door, channels, multipliers, blocks)
        self.encoder = Encoder(sizes, door, blocks, moment_channels, attention)
        self.decoder = Decoder(sizes, door, blocks, latent_channels, attention)

    def moments(self, images: Tensor) -> Tensor:
        self.check_size(*images.shape[2:])
        out: Tensor = self.encoder(images)
        return out.float()

    def _decoded(self, z: Tensor) -> Tensor:
        """Unscaled latents (B, C, h, w) -> images (B, 3, H, W)."""
        out: Tensor = self.decoder(z.contiguous(memory_format=torch.channels_last))
        return out.float()
