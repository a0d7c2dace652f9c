"""The mathematics: noise schedules, predictions, guidance and samplers. No config, no files, no training."""

from lab.diffusion.guidance import Guidance, GuidanceTerms
from lab.diffusion.interpolation import lerp, slerp
from lab.diffusion.parameterization import Parameterization, Prediction
from lab.diffusion.samplers import SAMPLERS, WITH_ETA, evaluation_times
from lab.diffusion.schedule import NoiseSchedule
from lab.diffusion.states import Denoiser, SamplerState, StepNoise
from lab.diffusion.thresholding import THRESHOLDINGS

__all__ = [
    "SAMPLERS",
    "THRESHOLDINGS",
    "WITH_ETA",
    "Denoiser",
    "Guidance",
    "GuidanceTerms",
    "NoiseSchedule",
    "Parameterization",
    "Prediction",
    "SamplerState",
    "StepNoise",
    "evaluation_times",
    "lerp",
    "slerp",
]
