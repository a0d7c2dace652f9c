"""What `python -m lab.train` does for each task: a configuration becomes data, a task, and a trained run."""

from lab.recipes.autoencoder import check_autoencoder, train_autoencoder
from lab.recipes.diffusion import check_diffusion, train_diffusion
from lab.recipes.flower_clip import train_flower_clip
from lab.recipes.judge import train_judge

__all__ = [
    "check_autoencoder",
    "check_diffusion",
    "train_autoencoder",
    "train_diffusion",
    "train_flower_clip",
    "train_judge",
]
