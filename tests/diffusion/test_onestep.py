"""DDIM, DDPM, Euler and Heun against diffusers' schedulers, and against each other."""

import math
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from dummy import SHAPE, THEIR_NAMES, T, denoiser, last, network, no_noise, relative_error, start, step_noise
from torch import Tensor

from lab.diffusion import NoiseSchedule, evaluation_times
from lab.diffusion.onestep import ddim, ddpm, euler, euler_ancestral, heun


def in_double(scheduler: Any, schedule: NoiseSchedule) -> Any:
    """Diffusers' scheduler on our float64 levels: theirs are the same in float32 (test_schedule.py)."""
    scheduler.alphas_cumprod = schedule.alphas_cumprod
    scheduler.one = scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


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


# -- Euler and Heun, which k-diffusion and diffusers write for x / alpha ------------------------------


def theirs_in_sigma(scheduler: Any, schedule: NoiseSchedule, steps: int, **extra: Any) -> Tensor:
    """The sample of a scheduler that holds x / alpha and, from step to step, computes in float32."""
    scheduler.alphas_cumprod = schedule.alphas_cumprod.clone()
    scheduler.set_timesteps(steps)
    x = start() / math.sqrt(float(schedule.alphas_cumprod[-1]))
    for step, t in enumerate(scheduler.timesteps):
        if extra:
            extra["generator"] = torch.Generator().manual_seed(100 + step)  # draws what step_noise(step) draws
        x = scheduler.step(network(scheduler.scale_model_input(x, t), float(t)), t, x, **extra).prev_sample
    return x


@pytest.mark.parametrize("steps", [5, 10, 50, T])
@pytest.mark.parametrize("prediction_type", ["eps", "v"])
def test_euler_is_that_of_diffusers(steps: int, prediction_type: str) -> None:
    schedule = NoiseSchedule("linear", T)
    kind = THEIR_NAMES[prediction_type]
    theirs = theirs_in_sigma(
        EulerDiscreteScheduler(T, timestep_spacing="trailing", prediction_type=kind), schedule, steps
    )
    ours = last(euler(denoiser(schedule, prediction_type), start(), schedule, schedule.spaced(steps), no_noise))
    assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("steps", [5, 10, 50, T])
@pytest.mark.parametrize("prediction_type", ["eps", "v"])
def test_euler_ancestral_is_that_of_diffusers(steps: int, prediction_type: str) -> None:
    schedule = NoiseSchedule("linear", T)
    kind = THEIR_NAMES[prediction_type]
    reference = EulerAncestralDiscreteScheduler(T, timestep_spacing="trailing", prediction_type=kind)
    theirs = theirs_in_sigma(reference, schedule, steps, generator=None)
    denoise, timesteps = denoiser(schedule, prediction_type), schedule.spaced(steps)
    assert relative_error(last(euler_ancestral(denoise, start(), schedule, timesteps, step_noise)), theirs) < 1e-5


@pytest.mark.parametrize("steps", [5, 10, 50, T // 2])
@pytest.mark.parametrize("prediction_type", ["eps", "v"])
def test_heun_is_that_of_diffusers(steps: int, prediction_type: str) -> None:
    """Diffusers counts levels, and evaluates 2 N - 1 times at N of them; ours counts evaluations."""
    schedule = NoiseSchedule("linear", T)
    kind = THEIR_NAMES[prediction_type]
    reference = HeunDiscreteScheduler(T, timestep_spacing="trailing", prediction_type=kind)
    theirs = theirs_in_sigma(reference, schedule, steps)
    timesteps = evaluation_times("heun", schedule, 2 * steps - 1)
    assert timesteps.tolist() == reference.timesteps.tolist()
    ours = last(heun(denoiser(schedule, prediction_type), start(), schedule, timesteps, no_noise))
    assert relative_error(ours, theirs) < 1e-5


def test_a_level_named_once_is_reached_by_euler() -> None:
    schedule = NoiseSchedule("linear", T)
    denoise, timesteps = denoiser(schedule, "v"), schedule.spaced(6)
    plain = last(euler(denoise, start(), schedule, timesteps, no_noise))
    assert torch.equal(last(heun(denoise, start(), schedule, timesteps, no_noise)), plain)


def test_a_step_from_nearly_pure_noise_is_not_corrected() -> None:
    """A cosine schedule starts at sigma/alpha = 20,000: a derivative there, times that, would drown the picture."""
    schedule = NoiseSchedule("cosine", 1000)
    states = list(heun(denoiser(schedule, "v"), start(), schedule, schedule.spaced(4)[[0, 1, 1, 2, 2, 3]], no_noise))
    assert torch.equal(states[1].x_t, states[2].x_t)
    assert not torch.equal(states[3].x_t, states[4].x_t)
    assert evaluation_times("heun", schedule, 6).tolist() == schedule.spaced(4)[[0, 1, 2, 2, 3, 3]].tolist()
