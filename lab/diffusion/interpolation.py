"""Ways from one condition or noise to another."""

import torch
from torch import Tensor

from lab.diffusion.guidance import Knob, per_sample


def lerp(start: Tensor, end: Tensor, weight: Knob) -> Tensor:
    """Straight: start + weight (end - start), for (B, ...) or (1, ...) tensors and a number or (B,) weights."""
    start, end, share = _aligned(start, end, weight)
    return start + share * (end - start)


def slerp(start: Tensor, end: Tensor, weight: Knob) -> Tensor:
    """Along the arc between each sample's two directions, with lengths going straight (Shoemake 1985).

    Between two unit noises it stays as long as noise is, where a straight line passes nearer to zero. For (B, ...)
    or (1, ...) tensors and a number or (B,) weights; straight where the directions are equal or opposite.
    """
    start, end, share = _aligned(start, end, weight)
    dims = tuple(range(1, start.ndim))
    of_start, of_end = (side.square().sum(dims, keepdim=True).sqrt().clamp(min=1e-12) for side in (start, end))
    one, other = start / of_start, end / of_end
    apart, together = ((one + sign * other).square().sum(dims, keepdim=True).sqrt() for sign in (-1, 1))
    angle = 2 * torch.atan2(apart, together)  # exact near 0 and pi, where the arc cosine is not
    sine = angle.sin()
    flat = sine.abs() < 1e-4
    sine = torch.where(flat, 1.0, sine)
    direction = ((1 - share) * angle).sin() / sine * one + (share * angle).sin() / sine * other
    arc = direction * torch.lerp(of_start, of_end, share)
    return torch.where(flat, start + share * (end - start), arc)


def _aligned(start: Tensor, end: Tensor, weight: Knob) -> tuple[Tensor, Tensor, Tensor]:
    """Both ends with a row a sample, and the weights beside them."""
    weights = torch.as_tensor(weight)
    rows = max(len(start), len(end), weights.numel())
    start, end = (side.expand(rows, *side.shape[1:]) for side in (start, end))
    return start, end, per_sample(weights, start)
