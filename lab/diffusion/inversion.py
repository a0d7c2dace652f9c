"""From a picture to the noise that a deterministic sampler would have made it from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.diffusion.schedule import NoiseSchedule
from lab.diffusion.states import Denoiser, evaluate


@dataclass(frozen=True)
class InversionState:
    """After the step up to time t."""

    t: int
    x_t: Tensor  # (B, C, H, W)
    residual: Tensor  # (B,) root mean square of what the last fixed-point iteration changed


def ddim_inversion(
    denoise: Denoiser, x0: Tensor, schedule: NoiseSchedule, timesteps: Tensor, fixed_point_iterations: int = 3
) -> Iterator[InversionState]:
    """Up the levels that DDIM comes down: the x_t whose DDIM step ends where the last one began.

    x0 (B, C, H, W); timesteps (S,) descending, as DDIM takes them. That x_t is the fixed point of DDIM's step read
    backwards (Pan et al. 2023, eq. 8): each iteration evaluates the network at the present guess, so that one alone is
    the usual approximation, eps at the level below (Song et al. 2021, section 5.4). S times as many evaluations.
    """
    x, below = x0, -1
    for t in reversed(timesteps.tolist()):
        (alpha_below, sigma_below), (alpha, sigma) = schedule.level(below), schedule.level(t)
        guess, moved = x, torch.zeros_like(x)
        for _ in range(fixed_point_iterations):
            prediction = evaluate(denoise, guess, t)
            after = alpha / alpha_below * (x - sigma_below * prediction.eps) + sigma * prediction.eps
            moved, guess = after - guess, after
        x, below = guess, t
        yield InversionState(t, x, moved.square().flatten(1).mean(1).sqrt())
