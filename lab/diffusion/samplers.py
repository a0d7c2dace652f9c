"""Samplers: one generator function each, yielding every state, so that a video or a plot needs no hook."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.diffusion.parameterization import Prediction
from lab.diffusion.schedule import NoiseSchedule

Denoiser = Callable[[Tensor, Tensor], Prediction]  # (x_t (B, C, H, W), t (B,)) -> Prediction
StepNoise = Callable[[int], Tensor]  # number of the step -> fresh unit noise (B, C, H, W)


@dataclass(frozen=True)
class SamplerState:
    """After evaluation number `step` (0-based) at time t: what went in, what was predicted, what comes next."""

    step: int
    t: int
    x_t: Tensor  # (B, C, H, W) the network's input
    x0: Tensor  # (B, C, H, W) predicted picture
    eps: Tensor  # (B, C, H, W) predicted noise
    x_next: Tensor  # (B, C, H, W) input of the next step; after the last step, the sample


def _pairs(timesteps: Tensor) -> Iterator[tuple[int, int, int]]:
    """(step, t, next t) along descending time steps; the last goes to -1, the picture itself."""
    following = [*timesteps[1:].tolist(), -1]
    yield from zip(range(len(timesteps)), timesteps.tolist(), following, strict=True)


def _full(t: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=torch.long, device=x.device)


def ddim(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    timesteps: Tensor,
    step_noise: StepNoise,
    eta: float = 0.0,
) -> Iterator[SamplerState]:
    """Song, Meng & Ermon 2021, eq. 12 and 16. eta 0 is deterministic, eta 1 has DDPM's variance.

    x (B, C, H, W) unit noise; timesteps (S,) descending: exactly S evaluations.
    """
    for step, t, t_next in _pairs(timesteps):
        prediction = denoise(x, _full(t, x))
        alpha, sigma = schedule.alpha_sigma(_full(t, x), x)
        alpha_next, sigma_next = schedule.alpha_sigma(_full(t_next, x), x)
        fresh = eta * sigma_next / sigma * (1 - (alpha / alpha_next) ** 2).sqrt()
        x_next = alpha_next * prediction.x0 + (sigma_next**2 - fresh**2).clamp(min=0).sqrt() * prediction.eps
        if eta and t_next >= 0:
            x_next = x_next + fresh * step_noise(step)
        yield SamplerState(step, t, x, prediction.x0, prediction.eps, x_next)
        x = x_next


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    timesteps: Tensor,
    step_noise: StepNoise,
    eta: float = 1.0,
) -> Iterator[SamplerState]:
    """Ho et al. 2020, eq. 6-7 between any two levels: posterior mean of x0 and x_t, eta times the small std.

    x (B, C, H, W) unit noise; timesteps (S,) descending: exactly S evaluations, no noise after the last.
    """
    for step, t, t_next in _pairs(timesteps):
        prediction = denoise(x, _full(t, x))
        alpha, sigma = schedule.alpha_sigma(_full(t, x), x)
        alpha_next, sigma_next = schedule.alpha_sigma(_full(t_next, x), x)
        beta = 1 - (alpha / alpha_next) ** 2
        x_next = alpha_next * beta / sigma**2 * prediction.x0 + alpha / alpha_next * sigma_next**2 / sigma**2 * x
        if t_next >= 0:
            x_next = x_next + eta * sigma_next / sigma * beta.sqrt() * step_noise(step)
        yield SamplerState(step, t, x, prediction.x0, prediction.eps, x_next)
        x = x_next


SAMPLERS: dict[str, Callable[..., Iterator[SamplerState]]] = {"ddim": ddim, "ddpm": ddpm}
