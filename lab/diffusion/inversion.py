"""From a picture to the noise that a deterministic sampler would have made it from."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from lab.diffusion.schedule import NoiseSchedule
from lab.diffusion.states import Denoiser, evaluate


@dataclass(frozen=True)
class InversionState:
    """After the step up to time t."""

    t: int
    x_t: Tensor  # (B, C, H, W)


SPREAD = 0.5  # std of pixels in [-1, 1], about: which of two equal forms settles faster depends on it


def ddim_inversion(
    denoise: Denoiser, x0: Tensor, schedule: NoiseSchedule, timesteps: Tensor, fixed_point_iterations: int = 3
) -> Iterator[InversionState]:
    """Up the levels that DDIM comes down: the x_t whose DDIM step ends where the last one began.

    x0 (B, C, H, W); timesteps (S,) descending, as DDIM takes them; S times as many evaluations as iterations. That x_t
    is a fixed point of DDIM's step read backwards (AIDI, Pan et al. 2023), and each iteration evaluates the network at
    the present guess: one alone takes eps of the x below, at the level above. The step is read for eps at low noise and
    for x0 at high noise, where x_t is nearly all eps and the first form would not move it. Where the picture is still
    undecided a long step has no such point nearby, and iterating does not help: there it takes more levels.
    """
    x, below = x0, -1
    for t in reversed(timesteps.tolist()):
        (alpha_below, sigma_below), (alpha, sigma) = schedule.level(below), schedule.level(t)
        by_x0 = _settles_by_x0(alpha_below, sigma_below, alpha, sigma)
        guess = x
        for _ in range(fixed_point_iterations):
            prediction = evaluate(denoise, guess, t)
            if by_x0:
                guess = alpha * prediction.x0 + sigma / sigma_below * (x - alpha_below * prediction.x0)
            else:
                guess = alpha / alpha_below * (x - sigma_below * prediction.eps) + sigma * prediction.eps
        x, below = guess, t
        yield InversionState(t, x)


def _settles_by_x0(alpha_below: float, sigma_below: float, alpha: float, sigma: float) -> bool:
    """Whether the x0 form contracts more than the eps form, for Gaussian data of std SPREAD."""
    if sigma_below == 0:
        return False
    of_x0 = abs(alpha - alpha_below * sigma / sigma_below) * alpha * SPREAD**2
    of_eps = abs(sigma - alpha * sigma_below / alpha_below) * sigma
    return of_x0 < of_eps
