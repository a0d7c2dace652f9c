"""The mathematics: noise schedules, predictions, guidance and samplers. No config, no files, no training."""

from lab.diffusion.guidance import Guidance, rescaled
from lab.diffusion.parameterization import Parameterization, Prediction
from lab.diffusion.samplers import SAMPLERS, SamplerState, ddim, ddpm
from lab.diffusion.schedule import NoiseSchedule

__all__ = [
    "SAMPLERS",
    "Guidance",
    "NoiseSchedule",
    "Parameterization",
    "Prediction",
    "SamplerState",
    "ddim",
    "ddpm",
    "rescaled",
]
