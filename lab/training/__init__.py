"""One training loop for everything that is trained, and the tasks it trains."""

from lab.training.diffusion import DiffusionTask
from lab.training.loop import Trainer
from lab.training.reconstruction import AutoencoderTask, ReconstructionLosses
from lab.training.settings import TrainingSettings
from lab.training.task import Task

__all__ = ["AutoencoderTask", "DiffusionTask", "ReconstructionLosses", "Task", "Trainer", "TrainingSettings"]
