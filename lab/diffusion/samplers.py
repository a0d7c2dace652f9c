"""All samplers by name, and the times at which each evaluates the network."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lab.diffusion.multistep import dpmpp_2m, lms, plms, unipc
from lab.diffusion.onestep import ddim, ddpm, euler, euler_ancestral, heun
from lab.diffusion.schedule import NoiseSchedule, nearly_noise
from lab.diffusion.states import SamplerState

SAMPLERS: dict[str, Callable[..., Iterator[SamplerState]]] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "plms": plms,
    "lms": lms,
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
}
WITH_ETA = ("ddim", "ddpm", "euler_ancestral")  # those that may add fresh noise

# Number of the level that evaluation i is made at, where not i; and of a schedule that begins with nearly pure noise,
# from which no step is corrected or repeated: there the second level is evaluated once.
_LEVELS: dict[str, Callable[[int], int]] = {
    "heun": lambda i: (i + 1) // 2,  # each but the first twice
    "plms": lambda i: i - (i >= 2),  # the second twice
}
_LEVELS_AFTER_NOISE: dict[str, Callable[[int], int]] = {
    "heun": lambda i: i if i < 2 else i // 2 + 1,
}


def evaluation_times(
    sampler: str, schedule: NoiseSchedule, num_inference_steps: int, spacing: str = "trailing"
) -> Tensor:
    """The times (S,) int64 that a sampler takes for S = num_inference_steps evaluations, whatever its order.

    A level that is evaluated twice is named twice. Raises LabError unless 1 <= S <= T, and for an unknown spacing.
    """
    schedule.check_steps(num_inference_steps)
    noise = nearly_noise(schedule.level(schedule.timesteps - 1)[0])
    level = (_LEVELS_AFTER_NOISE if noise else _LEVELS).get(sampler, lambda i: i)
    levels = torch.tensor([level(i) for i in range(num_inference_steps)])
    return schedule.spaced(int(levels[-1]) + 1, spacing)[levels]
