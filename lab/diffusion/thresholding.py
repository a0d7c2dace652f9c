"""Keeping predicted pictures in the range of pictures."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def none(x0: Tensor) -> Tensor:
    """As predicted."""
    return x0


def static(x0: Tensor) -> Tensor:
    """Ho et al. 2020's clipping: (B, C, H, W) held in [-1, 1]."""
    return x0.clamp(-1, 1)


def dynamic(x0: Tensor, share: float = 0.995) -> Tensor:
    """Saharia et al. 2022 (Imagen), section 2.3: clip at the value that `share` of a sample's pixels stay below,
    and divide by it where it is above 1, so that strong guidance does not saturate. (B, C, H, W).
    """
    sizes = x0.abs().flatten(1)
    limit = sizes.kthvalue(math.ceil(share * sizes.shape[1]), dim=1).values.clamp(min=1)
    limit = limit.view(-1, *[1] * (x0.ndim - 1))
    return torch.minimum(torch.maximum(x0, -limit), limit) / limit


def clip_fraction(x0: Tensor) -> Tensor:
    """Share of each sample's values outside [-1, 1]: (B,)."""
    return (x0.abs() > 1).flatten(1).float().mean(1)


THRESHOLDINGS: dict[str, Callable[[Tensor], Tensor]] = {"none": none, "static": static, "dynamic": dynamic}
