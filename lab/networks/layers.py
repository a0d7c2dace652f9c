"""The pieces of the UNet: time embedding, modulated residual block, filters."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def zero_(module: nn.Module) -> nn.Module:
    """The module with all parameters at zero: a residual branch that starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with groups of 16 channels where 16 divides the width, else as many larger ones as do.

    Not more groups: torch's CPU kernel for channels_last takes vectors of 16 channels, and ten times as long for
    groups of 4.
    """
    groups = next(g for g in range(max(1, channels // 16), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


class Dropout(nn.Dropout):
    """nn.Dropout; on the CPU by one random byte an element, which takes a quarter of the time.

    There p is rounded to a multiple of 1/256, and what is kept is scaled by the share that really is.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(256 * self.p)
        if x.device.type != "cpu" or not self.training or dropped in (0, 256):
            return super().forward(x)
        drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        layout = torch.empty_like(x, device="meta").stride()
        kept = drawn.view(torch.uint8)[: x.numel()].as_strided(x.shape, layout) >= dropped
        return x * (kept.to(x.dtype) * (256 / (256 - dropped)))


def sinusoidal(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Time steps (B,) to (B, dim): Vaswani et al. 2017, cosines then sines; dim even."""
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """t (B,) to (B, dim): sinusoids through a two-layer perceptron."""

    def __init__(self, frequencies: int, dim: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        weight = next(self.mlp.parameters())
        out: Tensor = self.mlp(sinusoidal(t, self.frequencies).to(weight.dtype))
        return out


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the second norm is scaled and shifted by the embedding (Dhariwal & Nichol 2021, AdaGN)."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(in_channels), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding_dim, 2 * out_channels)
        self.norm2 = norm(out_channels)
        self.dropout = Dropout(dropout)
        self.conv2 = zero_(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, C_in, H, W), embedding (B, D) -> (B, C_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        out: Tensor = self.skip(x) + self.conv2(self.dropout(h))
        return out


class Grow(nn.Conv2d):
    """Each place repeated, then a convolution to another width: (B, C, H, W) -> (B, C_out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):  # which commutes with repeating, and has a quarter of the places before it
            return F.interpolate(super().forward(x), scale_factor=2.0, mode="nearest")
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class FilterBank(nn.Module):
    """Filters whose gains and thresholds follow the embedding: what a denoiser does before it knows any shapes.

    The linear half can become a Wiener filter at each noise level, the other a shrinkage of small coefficients
    (Donoho & Johnstone 1994). It starts at zero, and keeps x from having to pass through normalisations.
    """

    def __init__(self, channels: int, hidden: int, embedding_dim: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.modulation = nn.Linear(embedding_dim, 3 * hidden)
        self.out = zero_(nn.Conv2d(2 * hidden, channels, 1, bias=False))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, C, H, W), embedding (B, D) -> (B, C, H, W)."""
        h = self.into(x)
        gain, scale, shift = self.modulation(embedding)[:, :, None, None].chunk(3, dim=1)
        out: Tensor = self.out(torch.cat([h * (1 + gain), F.silu(h * (1 + scale) + shift)], dim=1))
        return out
