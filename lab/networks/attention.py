"""Attention in the UNet: full and linear between places, to the tokens of a condition, and the block that has both."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from lab.errors import LabError
from lab.networks.layers import norm, zero_

MANY_PLACES = 1024  # 32x32: more attend to each other without holding all weights


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention: q (B, h, d, N) to k and v (B, h, d, M) -> (B, h, d, N)."""
    # On the CPU the fused kernel's backward takes 4 times as long as the formula's, which holds N x M weights.
    if q.device.type == "cpu" and q.requires_grad and q.shape[3] <= MANY_PLACES:
        weights = ((q * q.shape[2] ** -0.5).transpose(2, 3) @ k).softmax(dim=3)
        return v @ weights.transpose(2, 3)
    q, k, v = (a.transpose(2, 3) for a in (q, k, v))  # (B, h, places, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3)


def split_heads(channels: int, head_dim: int) -> int:
    """The number of heads; LabError where the channels do not split into them."""
    heads = max(1, channels // head_dim)
    if channels % heads:
        raise LabError(f"model.head_dim={head_dim}: {channels} channels do not split into {heads} heads")
    return heads


class _Attention(nn.Module, ABC):
    """What both attentions share: norm, heads of q, k, v (B, h, d, N), zero-initialised output, residual."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.heads = split_heads(channels, head_dim)
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = zero_(nn.Conv2d(channels, channels, 1))

    @abstractmethod
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What each place gathers: q, k, v (B, h, d, N) -> (B, h, d, N)."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        mixed = self.mix(*qkv.unbind(1)).reshape(b, c, h, w)
        out: Tensor = x + self.out(mixed)
        return out


class FullAttention(_Attention):
    """Softmax attention between all places: O(N^2) in the number of places N."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v)


class LinearAttention(_Attention):
    """Shen et al. 2018, "Efficient attention": softmax over channels of q and over places of k, O(N)."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q.softmax(dim=2) * q.shape[2] ** -0.5
        k = k.softmax(dim=3)
        context = k @ v.transpose(2, 3)  # (B, h, d, d): what each key channel gathered
        return context.transpose(2, 3) @ q


ATTENTION: dict[str, type[_Attention]] = {"linear": LinearAttention, "full": FullAttention}


class CrossAttention(nn.Module):
    """Every place looks at the tokens of the condition (Rombach et al. 2022, section 3.3); starts as the identity."""

    def __init__(self, channels: int, head_dim: int, token_dim: int) -> None:
        super().__init__()
        self.heads = split_heads(channels, head_dim)
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1, bias=False)
        self.kv = nn.Linear(token_dim, 2 * channels, bias=False)
        self.out = zero_(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x (B, C, H, W), tokens (B, L, D) -> (B, C, H, W)."""
        b, c, h, w = x.shape
        q = self.q(self.norm(x)).reshape(b, self.heads, c // self.heads, h * w)
        kv = self.kv(tokens).transpose(1, 2).reshape(b, 2, self.heads, c // self.heads, tokens.shape[1])
        mixed = attend(q, *kv.unbind(1)).reshape(b, c, h, w)
        out: Tensor = x + self.out(mixed)
        return out


class FeedForward(nn.Module):
    """Each place by itself: a gated two-layer perceptron (Shazeer 2020, GEGLU); starts as the identity."""

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.into = nn.Conv2d(channels, 2 * expansion * channels, 1)
        self.out = zero_(nn.Conv2d(expansion * channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.into(self.norm(x)).chunk(2, dim=1)
        out: Tensor = x + self.out(values * F.gelu(gates))
        return out


class SpatialTransformer(nn.Module):
    """Places look at each other, then at the tokens, then at themselves (Rombach et al. 2022, appendix E.2.1)."""

    def __init__(self, attention: nn.Module, channels: int, head_dim: int, token_dim: int) -> None:
        super().__init__()
        self.attention = attention
        self.cross, self.feed = CrossAttention(channels, head_dim, token_dim), FeedForward(channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x (B, C, H, W), tokens (B, L, D) -> (B, C, H, W)."""
        out: Tensor = self.feed(self.cross(self.attention(x), tokens))
        return out
