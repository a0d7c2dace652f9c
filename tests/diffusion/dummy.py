"""Denoisers for tests of samplers: an arbitrary network, and ideal ones of data with a closed form."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lab.diffusion import Denoiser, NoiseSchedule, Parameterization, Prediction, SamplerState

T = 200
SHAPE = (2, 3, 4, 4)
THEIR_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}

_DRAW = torch.Generator().manual_seed(7)
_MIX, _BIAS = torch.randn(3, 3, generator=_DRAW).double(), torch.randn(1, 3, 4, 4, generator=_DRAW).double()


def network(x: Tensor, t: float) -> Tensor:
    """A stand-in: bounded, smooth, dependent on all of x and on t, in float64."""
    return torch.tanh(torch.einsum("dc,bchw->bdhw", _MIX, x.double()) + _BIAS * (1 + float(t) / T))


def start() -> Tensor:
    """Unit noise, the same at each call."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def step_noise(step: int) -> Tensor:
    """Fresh noise of a step, drawn as diffusers draws it from a generator seeded with 100 + step."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)


def no_noise(step: int) -> Tensor:
    """For samplers that must not ask."""
    raise AssertionError(f"step {step} drew noise")


def denoiser(schedule: NoiseSchedule, prediction_type: str) -> Denoiser:
    """The stand-in as a model of the given kind."""
    formulas = Parameterization(schedule, prediction_type)
    return lambda x, t: formulas.predict(network(x, int(t[0])), x, t)


def last(states: Iterator[SamplerState]) -> Tensor:
    """The sample."""
    return list(states)[-1].x_next


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs|."""
    return float((ours - theirs).norm() / theirs.norm())


# A mixture of two Gaussians, each pixel for itself.
WEIGHTS, MEANS, STDS = (torch.tensor(v, dtype=torch.float64) for v in ([0.4, 0.6], [-0.6, 0.7], [0.3, 0.2]))


def ideal(schedule: NoiseSchedule) -> Denoiser:
    """E[x0 | x_t] for pixels from the mixture."""

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        alpha, sigma = schedule.level(int(t[0]))
        variance = (alpha * STDS) ** 2 + sigma**2
        away = x[..., None] - alpha * MEANS
        likely = (WEIGHTS.log() - variance.log() / 2 - away**2 / variance / 2).softmax(-1)
        x0 = (likely * (MEANS + STDS**2 * alpha / variance * away)).sum(-1)
        return Prediction(x0, (x - alpha * x0) / sigma)

    return denoise


def quantiles(schedule: NoiseSchedule, t: int, x: Tensor) -> Tensor:
    """The mixture's cumulative distribution at time t: the probability-flow ODE in one dimension keeps it."""
    alpha, sigma = schedule.level(t)
    spread = ((alpha * STDS) ** 2 + sigma**2).sqrt()
    return (WEIGHTS * torch.special.ndtr((x[..., None] - alpha * MEANS) / spread)).sum(-1)


def flow(schedule: NoiseSchedule, x: Tensor) -> Tensor:
    """Where the probability-flow ODE takes x at time T-1, by bisection for the data's equal quantile."""
    wanted = quantiles(schedule, schedule.timesteps - 1, x)
    low, high = torch.full_like(x, -4), torch.full_like(x, 4)
    for _ in range(60):
        middle = (low + high) / 2
        below = quantiles(schedule, -1, middle) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
