"""Samplers that forget: each step knows the present state only."""

import math
from collections.abc import Iterator

from torch import Tensor

from lab.diffusion.schedule import NoiseSchedule, nearly_noise
from lab.diffusion.states import Denoiser, SamplerState, StepNoise, evaluate, pairs, state


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
    for step, t, t_next in pairs(timesteps):
        prediction = evaluate(denoise, x, t)
        (alpha, sigma), (alpha_next, sigma_next) = schedule.level(t), schedule.level(t_next)
        fresh = eta * sigma_next / sigma * math.sqrt(1 - (alpha / alpha_next) ** 2)
        x_next = alpha_next * prediction.x0 + math.sqrt(max(sigma_next**2 - fresh**2, 0)) * prediction.eps
        if eta and t_next >= 0:
            x_next = x_next + fresh * step_noise(step)
        yield state(step, t, x, prediction, x_next)
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
    for step, t, t_next in pairs(timesteps):
        prediction = evaluate(denoise, x, t)
        (alpha, sigma), (alpha_next, sigma_next) = schedule.level(t), schedule.level(t_next)
        beta = 1 - (alpha / alpha_next) ** 2
        of_x0, of_x = alpha_next * beta / sigma**2, alpha / alpha_next * (sigma_next / sigma) ** 2
        x_next = of_x0 * prediction.x0 + of_x * x
        if t_next >= 0:
            x_next = x_next + eta * sigma_next / sigma * math.sqrt(beta) * step_noise(step)
        yield state(step, t, x, prediction, x_next)
        x = x_next


def euler(
    denoise: Denoiser, x: Tensor, schedule: NoiseSchedule, timesteps: Tensor, step_noise: StepNoise
) -> Iterator[SamplerState]:
    """Karras et al. 2022, eq. 3: x/alpha moves along eps as sigma/alpha shrinks.

    x (B, C, H, W) unit noise; timesteps (S,) descending: exactly S evaluations. Written for x itself the step is
    alpha' x0 + sigma' eps, which is DDIM's with eta 0.
    """
    yield from ddim(denoise, x, schedule, timesteps, step_noise, eta=0.0)


def euler_ancestral(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    timesteps: Tensor,
    step_noise: StepNoise,
    eta: float = 1.0,
) -> Iterator[SamplerState]:
    """k-diffusion's sample_euler_ancestral: Euler down to less than the next level, fresh noise up to it.

    x (B, C, H, W) unit noise; timesteps (S,) descending: exactly S evaluations. In s = sigma / alpha the noise is
    s_up = eta s' sqrt(1 - (s'/s)^2), which is DDIM's with the same eta.
    """
    yield from ddim(denoise, x, schedule, timesteps, step_noise, eta=eta)


def heun(
    denoise: Denoiser, x: Tensor, schedule: NoiseSchedule, timesteps: Tensor, step_noise: StepNoise
) -> Iterator[SamplerState]:
    """Karras et al. 2022, algorithm 1: Euler, then again with the mean of both ends' derivatives.

    x (B, C, H, W) unit noise; timesteps (S,) descending, a corrected level named twice: t0, t1, t1, t2, t2, ...
    Exactly S evaluations: the first at a level corrects the step to it, the second goes on from there. A step to a
    level that is named once stays Euler's, as the last one is; so does one from nearly pure noise, where x / alpha
    has no derivative to speak of (`evaluation_times` names that level once).
    """
    visit = None  # (derivative, sigma / alpha) that a step to the present level came with, until it is corrected
    times = timesteps.tolist()
    for step, t, t_next in pairs(timesteps):
        prediction = evaluate(denoise, x, t)
        (alpha, sigma), (alpha_next, sigma_next) = schedule.level(t), schedule.level(t_next)
        if t_next == t:
            x_next = x
            if visit is not None:
                eps, s = visit
                x_next = x + (sigma - alpha * s) / 2 * (prediction.eps - eps)
        else:
            x_next = alpha_next * prediction.x0 + sigma_next * prediction.eps
            corrected = times[step + 1 : step + 3] == [t_next] * 2 and not nearly_noise(alpha)
            visit = (prediction.eps, sigma / alpha) if corrected else None
        yield state(step, t, x, prediction, x_next)
        x = x_next
