"""Training an autoencoder, for diffusion in its latents."""

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from lab import runs
from lab.autoencoders import Autoencoder, Identity
from lab.clip import load_clip
from lab.config import build
from lab.data import BatchStream, Source
from lab.device import local_device
from lab.errors import LabError
from lab.perceptual import PerceptualDistance
from lab.recipes.run import run
from lab.seeding import derive
from lab.training import AutoencoderTask, ReconstructionLosses, TrainingSettings


def check_autoencoder(cfg: DictConfig) -> None:
    """LabError for an autoencoder that cannot be built, or cannot have images of that size."""
    losses: ReconstructionLosses = build(cfg.reconstruction)
    if cfg.latents.run is not None:
        if not (Path(cfg.latents.run) / runs.CONFIG).is_file():
            return  # left to `train_autoencoder`, which knows the run's folder
        cfg = runs.with_autoencoder(cfg)
    with torch.device("meta"):
        autoencoder: Autoencoder = build(cfg.autoencoder)
    if isinstance(autoencoder, Identity):
        raise LabError("autoencoder=identity: there is nothing to train; use autoencoder=kl or autoencoder=vq")
    if cfg.data.image_size % autoencoder.factor:
        factor = f"autoencoder.factor={autoencoder.factor}"
        raise LabError(f"data.image_size={cfg.data.image_size}: use a multiple of {factor}")
    losses.check_size(cfg.data.image_size)
    if losses.adversarial_weight and cfg.training.compile:
        raise LabError("training.compile=true: not with reconstruction.adversarial_weight; switch one off")


def train_autoencoder(cfg: DictConfig, run_dir: Path) -> None:
    """An autoencoder of the configured data's images, for diffusion in its latents.

    With `latents.run` the one of that run, whose latents stay as they are: its decoder alone goes on learning.
    """
    settings: TrainingSettings = build(cfg.training)
    source: Source = build(cfg.data)
    losses: ReconstructionLosses = build(cfg.reconstruction)
    perceptual = perceptual_distance(losses)
    if perceptual is not None:
        cfg = OmegaConf.merge(cfg, {"reconstruction": {"fingerprint": perceptual.fingerprint}})  # type: ignore[assignment]
    images, held_out = source.load("train"), source.load("held_out")
    torch.manual_seed(derive(cfg.seed, "init"))
    stays = cfg.latents.run is not None
    autoencoder: Autoencoder = (
        runs.load_autoencoder(runs.autoencoder_run(cfg, run_dir), local_device()) if stays else build(cfg.autoencoder)
    )
    stream = BatchStream(images, settings.batch_size, cfg.seed, settings.class_balanced, settings.flip)
    task = AutoencoderTask(autoencoder, stream, held_out, cfg.seed, losses, perceptual, latents_stay=stays)
    run(cfg, task, run_dir, settings)


def perceptual_distance(losses: ReconstructionLosses) -> PerceptualDistance | None:
    """By the features that the losses name; LabError where they are out of reach."""
    if losses.perceptual == "none" or losses.perceptual_weight == 0:
        return None
    if losses.perceptual == "vgg":
        return PerceptualDistance.of_vgg().to(local_device())
    try:
        clip = load_clip("flower_clip", str(runs.REFERENCE / "flower_clip"))
    except LabError as error:
        raise LabError(f"reconstruction.perceptual=flower_clip: {error}; vgg and none do without it") from error
    return PerceptualDistance.of_clip(clip).to(local_device())
