"""Training a task into a run's folder."""

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from lab.clip.task import FlowerClipTask
from lab.continuing import refuse_changes, write_config
from lab.judging import JudgeTask
from lab.render import loss_curve
from lab.training import AutoencoderTask, DiffusionTask, Trainer, TrainingSettings


def run(
    cfg: DictConfig,
    task: DiffusionTask | AutoencoderTask | FlowerClipTask | JudgeTask,
    run_dir: Path,
    settings: TrainingSettings,
) -> Trainer:
    """Train into `run_dir`, beside the configuration; ends with the curve of the loss."""
    images = task.stream.image_set
    cfg = OmegaConf.merge(cfg, {"image_set": f"{images.name} {images.fingerprint}"})  # type: ignore[assignment]
    trainer = Trainer(task, run_dir, settings, cfg.seed)
    refuse_changes(cfg, run_dir)  # again: what data and CLIP have filled in may not change either
    write_config(cfg, run_dir)
    with torch.random.fork_rng(devices=[]):
        trainer.run()
    if trainer.accelerator.is_main_process:
        loss_curve(run_dir / "log.csv", run_dir / "loss.png")
    return trainer
