"""PLMS, LMS, DPM++ 2M and UniPC against diffusers' schedulers, driven by the same network."""

import math
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from dummy import THEIR_NAMES, T, denoiser, last, network, no_noise, relative_error, start
from torch import Tensor

from lab.diffusion import SAMPLERS, NoiseSchedule, evaluation_times
from lab.diffusion.multistep import lms


def theirs(scheduler: Any, schedule: NoiseSchedule, steps: int, of_sigma: bool = False) -> Tensor:
    """The scheduler's sample on our levels. of_sigma: it holds x / alpha instead of x."""
    scheduler.alphas_cumprod = schedule.alphas_cumprod.clone()
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(steps)
    x = start() / (math.sqrt(float(schedule.alphas_cumprod[-1])) if of_sigma else 1)
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), float(t)), t, x).prev_sample
    return x


def ours(name: str, schedule: NoiseSchedule, prediction_type: str, evaluations: int) -> Tensor:
    timesteps = evaluation_times(name, schedule, evaluations)
    return last(SAMPLERS[name](denoiser(schedule, prediction_type), start(), schedule, timesteps, no_noise))


@pytest.mark.parametrize("steps", [5, 10, 50, T])
@pytest.mark.parametrize("prediction_type", ["eps", "v"])
def test_lms_is_that_of_diffusers(steps: int, prediction_type: str) -> None:
    """Their integrals are numerical, to 1e-4; ours are exact."""
    schedule = NoiseSchedule("linear", T)
    reference = LMSDiscreteScheduler(T, timestep_spacing="trailing", prediction_type=THEIR_NAMES[prediction_type])
    sample = theirs(reference, schedule, steps, of_sigma=True)
    assert relative_error(ours("lms", schedule, prediction_type, steps), sample) < 1e-5


@pytest.mark.parametrize("steps", [5, 10, 50, T])
@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_dpmpp_2m_is_that_of_diffusers(steps: int, prediction_type: str) -> None:
    schedule = NoiseSchedule("linear", T)
    reference = DPMSolverMultistepScheduler(
        T, timestep_spacing="trailing", final_sigmas_type="zero", prediction_type=THEIR_NAMES[prediction_type]
    )
    assert relative_error(ours("dpmpp_2m", schedule, prediction_type, steps), theirs(reference, schedule, steps)) < 1e-5


@pytest.mark.parametrize("steps", [5, 10, 50, T])
@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_unipc_is_that_of_diffusers(steps: int, prediction_type: str) -> None:
    schedule = NoiseSchedule("linear", T)
    reference = UniPCMultistepScheduler(
        T, timestep_spacing="trailing", final_sigmas_type="zero", prediction_type=THEIR_NAMES[prediction_type]
    )
    assert relative_error(ours("unipc", schedule, prediction_type, steps), theirs(reference, schedule, steps)) < 1e-5


@pytest.mark.parametrize("steps", [5, 10, 50, T // 2])
def test_plms_is_that_of_diffusers(steps: int) -> None:
    """Diffusers counts levels, and evaluates N + 1 times at N of them; ours counts evaluations, at most T.

    For v they average the network's outputs of two levels, ours its eps as the paper does: the two part there.
    """
    schedule = NoiseSchedule("linear", T)
    reference = PNDMScheduler(T, timestep_spacing="trailing", skip_prk_steps=True, set_alpha_to_one=True)
    sample = theirs(reference, schedule, steps)
    assert reference.timesteps.tolist() == evaluation_times("plms", schedule, steps + 1).tolist()
    assert sample.dtype == torch.float64
    assert relative_error(ours("plms", schedule, "eps", steps + 1), sample) < 1e-9


def test_of_order_one_lms_is_euler() -> None:
    schedule = NoiseSchedule("linear", T)
    denoise, timesteps = denoiser(schedule, "v"), schedule.spaced(7)
    sample = last(lms(denoise, start(), schedule, timesteps, no_noise, order=1))
    assert relative_error(sample, ours("euler", schedule, "v", 7)) < 1e-9


@pytest.mark.parametrize("name", ["plms", "lms", "dpmpp_2m", "unipc"])
def test_one_step_goes_straight_to_the_predicted_picture(name: str) -> None:
    schedule = NoiseSchedule("cosine", 100)
    assert relative_error(ours(name, schedule, "v", 1), ours("ddim", schedule, "v", 1)) < 1e-9
