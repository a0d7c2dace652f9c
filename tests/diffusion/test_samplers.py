"""Samplers against diffusers' schedulers, and against closed forms on Gaussian data."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from lab.diffusion import SAMPLERS, NoiseSchedule, Parameterization, Prediction, SamplerState, ddim, ddpm
from lab.diffusion.samplers import Denoiser

T = 200
SHAPE = (2, 3, 4, 4)
THEIR_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


DRAW = torch.Generator().manual_seed(7)
MIX, BIAS = torch.randn(3, 3, generator=DRAW).double(), torch.randn(1, 3, 4, 4, generator=DRAW).double()


def network(x: Tensor, t: int) -> Tensor:
    """A stand-in: bounded, smooth, dependent on all of x and on t, in float64."""
    return torch.tanh(torch.einsum("dc,bchw->bdhw", MIX, x) + BIAS * (1 + t / T))


def start() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def step_noise(step: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)


def denoiser(schedule: NoiseSchedule, prediction_type: str) -> Denoiser:
    formulas = Parameterization(schedule, prediction_type)
    return lambda x, t: formulas.predict(network(x, int(t[0])), x, t)


def in_double(scheduler: Any, schedule: NoiseSchedule) -> Any:
    """Diffusers' scheduler on our float64 levels: theirs are the same in float32 (test_schedule.py)."""
    scheduler.alphas_cumprod = schedule.alphas_cumprod
    scheduler.one = scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


def last(states: Iterator[SamplerState]) -> Tensor:
    return list(states)[-1].x_next


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("steps", [5, 10, 50, T])
@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_that_of_diffusers(steps: int, prediction_type: str, eta: float) -> None:
    schedule = NoiseSchedule("linear", T)
    reference = in_double(
        DDIMScheduler(
            T,
            clip_sample=False,
            timestep_spacing="trailing",
            prediction_type=THEIR_NAMES[prediction_type],
        ),
        schedule,
    )
    reference.set_timesteps(steps)
    theirs = start()
    for step, t in enumerate(reference.timesteps.tolist()):
        fresh = step_noise(step) if eta else None
        theirs = reference.step(network(theirs, t), t, theirs, eta=eta, variance_noise=fresh).prev_sample
    ours = last(ddim(denoiser(schedule, prediction_type), start(), schedule, schedule.spaced(steps), step_noise, eta))
    assert theirs.dtype == torch.float64
    assert relative_error(ours, theirs) < 1e-9


@pytest.mark.parametrize("steps", [5, 10, 50, T])
@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_ddpm_is_that_of_diffusers(steps: int, prediction_type: str) -> None:
    """After the last step of fewer than T, diffusers adds noise of std 1e-10, where none is due."""
    schedule = NoiseSchedule("linear", T)
    reference = in_double(
        DDPMScheduler(
            T,
            clip_sample=False,
            timestep_spacing="trailing",
            variance_type="fixed_small",
            prediction_type=THEIR_NAMES[prediction_type],
        ),
        schedule,
    )
    reference.set_timesteps(steps)
    theirs = start()
    for step, t in enumerate(reference.timesteps.tolist()):
        same = torch.Generator().manual_seed(100 + step)  # draws what step_noise(step) draws
        theirs = reference.step(network(theirs, t), t, theirs, generator=same).prev_sample
    ours = last(ddpm(denoiser(schedule, prediction_type), start(), schedule, schedule.spaced(steps), step_noise))
    assert theirs.dtype == torch.float64
    assert relative_error(ours, theirs) < 1e-8


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_ddim_with_eta_1_is_ddpm(prediction_type: str) -> None:
    """Song et al. 2021, section 4.1, between any two levels; one formula in eps, the other in x_t."""
    schedule = NoiseSchedule("cosine", 1000)
    for steps in (1, 7, 33):  # 1000 is a multiple of none but the first
        denoise, timesteps = denoiser(schedule, prediction_type), schedule.spaced(steps)
        one = last(ddim(denoise, start(), schedule, timesteps, step_noise, eta=1.0))
        other = last(ddpm(denoise, start(), schedule, timesteps, step_noise))
        assert relative_error(one, other) < 1e-9


@pytest.mark.parametrize("prediction_type", ["x0", "v"])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samplers_start_from_pure_noise(name: str, prediction_type: str) -> None:
    """At zero terminal SNR the first step divides by no alpha."""
    schedule = NoiseSchedule("cosine", 1000, zero_terminal_snr=True)
    states = SAMPLERS[name](denoiser(schedule, prediction_type), start(), schedule, schedule.spaced(9), step_noise)
    assert all(bool(state.x_next.isfinite().all()) for state in states)


# -- what every sampler does -------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_exactly_one_evaluation_a_step_and_every_state_is_yielded(name: str, steps: int) -> None:
    schedule = NoiseSchedule("cosine", 100)
    inner, calls = denoiser(schedule, "v"), []

    def counted(x: Tensor, t: Tensor) -> Prediction:
        assert t.shape == (len(x),) and t.dtype == torch.int64 and len(set(t.tolist())) == 1
        calls.append((int(t[0]), x))
        return inner(x, t)

    states = list(SAMPLERS[name](counted, start(), schedule, schedule.spaced(steps), step_noise))
    assert [t for t, _ in calls] == schedule.spaced(steps).tolist() == [state.t for state in states]
    assert [state.step for state in states] == list(range(steps))
    assert torch.equal(states[0].x_t, start())
    for before, after in pairwise(states):
        assert before.x_next is after.x_t
    for state, (_, x) in zip(states, calls, strict=True):
        assert state.x_t is x
        rebuilt = schedule.add_noise(state.x0, state.eps, torch.full((2,), state.t))
        torch.testing.assert_close(rebuilt, state.x_t, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_the_last_step_adds_no_noise(name: str) -> None:
    """It ends at the predicted picture itself, and asks for no noise to get there."""
    schedule, asked = NoiseSchedule("cosine", 100), []

    def recorded(step: int) -> Tensor:
        asked.append(step)
        return step_noise(step)

    states = list(SAMPLERS[name](denoiser(schedule, "v"), start(), schedule, schedule.spaced(6), recorded, eta=1.0))
    assert asked == [0, 1, 2, 3, 4]
    torch.testing.assert_close(states[-1].x_next, states[-1].x0)


def test_ddim_is_deterministic_unless_told_otherwise() -> None:
    def refuse(step: int) -> Tensor:
        raise AssertionError("eta 0 draws nothing")

    schedule = NoiseSchedule("cosine", 100)
    denoise, timesteps = denoiser(schedule, "v"), schedule.spaced(9)
    first, second = (last(ddim(denoise, start(), schedule, timesteps, refuse)) for _ in range(2))
    assert torch.equal(first, second)


def test_eta_scales_the_noise_of_both() -> None:
    """The first step's noise has std eta * sigma_next / sigma * sqrt(1 - alpha^2 / alpha_next^2)."""
    schedule = NoiseSchedule("cosine", 100)
    timesteps = schedule.spaced(4)
    levels = schedule.alphas_cumprod[timesteps[:2]]
    small = ((1 - levels[1]) / (1 - levels[0]) * (1 - levels[0] / levels[1])).sqrt()
    denoise = denoiser(schedule, "v")
    mean = next(ddpm(denoise, start(), schedule, timesteps, step_noise, eta=0.0)).x_next
    for eta in (0.3, 1.0, 1.5):
        drawn = next(ddpm(denoise, start(), schedule, timesteps, step_noise, eta=eta)).x_next
        torch.testing.assert_close(drawn - mean, eta * small * step_noise(0))
    drawn = next(ddim(denoise, start(), schedule, timesteps, step_noise, eta=0.3)).x_next
    quiet = next(ddim(denoise, start(), schedule, timesteps, lambda step: torch.zeros(SHAPE), eta=0.3)).x_next
    torch.testing.assert_close(drawn - quiet, 0.3 * small * step_noise(0))


# -- Gaussian data: the ideal denoiser is known ------------------------------------------------------

MEAN, STD = 0.3, 0.5


def ideal(schedule: NoiseSchedule) -> Denoiser:
    """E[x0 | x_t] for pixels that are independent N(MEAN, STD^2)."""

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        alpha, sigma = schedule.alpha_sigma(t, x)
        x0 = MEAN + STD**2 * alpha / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        return Prediction(x0, (x - alpha * x0) / sigma)

    return denoise


def test_ddim_converges_to_the_flow_of_the_ode_with_order_one() -> None:
    """The probability-flow ODE of Gaussian data moves every quantile onto the same quantile of the data."""
    schedule = NoiseSchedule("cosine", 6400)
    x = torch.linspace(-2, 2, 41, dtype=torch.float64).view(-1, 1, 1, 1)
    alpha, sigma = schedule.alpha_sigma(torch.full((41,), 6399), x)
    exact = MEAN + STD * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()
    errors = []
    for steps in (25, 50, 100, 200):
        sample = last(ddim(ideal(schedule), x, schedule, schedule.spaced(steps), step_noise))
        errors.append(float((sample - exact).abs().max()))
    orders = [torch.tensor(a / b).log2().item() for a, b in pairwise(errors)]
    assert errors[-1] < 0.01
    assert orders == pytest.approx([1.0] * 3, abs=0.25), (errors, orders)


@pytest.mark.parametrize(("name", "eta"), [("ddpm", 1.0), ("ddim", 1.0), ("ddim", 0.0)])
def test_samples_have_the_mean_and_the_variance_of_the_data(name: str, eta: float) -> None:
    schedule, shape = NoiseSchedule("cosine", 250), (8000, 1, 1, 1)

    def fresh(step: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)

    x = torch.randn(shape, generator=torch.Generator().manual_seed(12345), dtype=torch.float64)
    sample = last(SAMPLERS[name](ideal(schedule), x, schedule, schedule.spaced(250), fresh, eta=eta))
    assert float(sample.mean()) == pytest.approx(MEAN, abs=0.02)  # standard error 0.0056
    assert float(sample.std()) == pytest.approx(STD, rel=0.03)  # standard error 0.8 %
