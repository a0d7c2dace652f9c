"""What every sampler takes and yields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.diffusion.guidance import GuidanceTerms
from lab.diffusion.parameterization import Prediction

Denoiser = Callable[[Tensor, Tensor], Prediction]  # (x_t (B, C, H, W), t (B,)) -> Prediction
StepNoise = Callable[[int], Tensor]  # number of the step -> fresh unit noise (B, C, H, W)


@dataclass(frozen=True)
class SamplerState:
    """Evaluation number `step` (0-based), at time t: what went in, what was predicted, what comes next."""

    step: int
    t: int
    x_t: Tensor  # (B, C, H, W) the network's input
    x0: Tensor  # (B, C, H, W) predicted picture
    eps: Tensor  # (B, C, H, W) predicted noise
    x_next: Tensor  # (B, C, H, W) input of the next evaluation; after the last one, the sample
    guidance: GuidanceTerms | None = None  # both branches and what guidance did, where there were two
    clip_fraction: Tensor | None = None  # (B,) share of x0 outside [-1, 1] before it was brought back; pixels only


def evaluate(denoise: Denoiser, x: Tensor, t: int) -> Prediction:
    """The prediction at x (B, C, H, W), all of it at time t."""
    return denoise(x, torch.full((len(x),), t, dtype=torch.long, device=x.device))


def state(step: int, t: int, x: Tensor, prediction: Prediction, x_next: Tensor) -> SamplerState:
    """The state after one evaluation."""
    return SamplerState(
        step, t, x, prediction.x0, prediction.eps, x_next, prediction.guidance, prediction.clip_fraction
    )


def pairs(timesteps: Tensor) -> Iterator[tuple[int, int, int]]:
    """(step, t, next t) along descending time steps; the last goes to -1, the picture itself."""
    following = [*timesteps[1:].tolist(), -1]
    yield from zip(range(len(timesteps)), timesteps.tolist(), following, strict=True)
