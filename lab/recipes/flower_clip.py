"""Training the lab's own CLIP, for itself or for a run that needs one."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from lab import runs
from lab.clip.task import FlowerClipTask
from lab.config import build
from lab.continuing import write_config
from lab.data import Folder, ImageSet, Source
from lab.recipes.run import run
from lab.training import Trainer, TrainingSettings

logger = logging.getLogger(__name__)


def train_flower_clip(cfg: DictConfig, run_dir: Path) -> None:
    """The lab's own CLIP, left in the run's folder `clip/` for `conditioning.pretrained=`."""
    settings: TrainingSettings = build(cfg.training)
    source: Source = build(cfg.data)
    task = flower_clip_task(cfg, source, source.load("train"), settings)
    trainer = run(cfg, task, run_dir, settings)
    export_clip(task, trainer, run_dir / runs.OWN_CLIP)


def flower_clip_task(cfg: DictConfig, source: Source, images: ImageSet, settings: TrainingSettings) -> FlowerClipTask:
    """Training the lab's own CLIP on a set, held-out retrieval as its preview."""
    held_out = source.load("held_out")
    return FlowerClipTask(
        images,
        held_out,
        settings.batch_size,
        cfg.seed,
        cfg.clip_model,
        class_balanced=settings.class_balanced,
        flip=settings.flip,
    )


def own_clip(cfg: DictConfig, source: Source, images: ImageSet, run_dir: Path) -> Path:
    """The folder of a flower_clip: the run's, or of one for this set the reference one, or one trained now."""
    mine = run_dir / runs.OWN_CLIP
    if runs.clip_trained_on(mine) is not None:  # whose vectors the run has learned from, wherever its data lie now
        return mine
    reference = runs.REFERENCE / cfg.clip_model
    own_name = not isinstance(source, Folder)  # a folder may be called like any set
    if own_name and runs.clip_trained_on(reference) == images.name:
        return reference
    settings: TrainingSettings = build(cfg.clip_training)
    logger.info("no flower_clip for %s yet: training %s first, %d steps", images.name, cfg.clip_model, settings.steps)
    task = flower_clip_task(cfg, source, images, settings)
    trainer = Trainer(task, run_dir / runs.CLIP_TRAINING, settings, cfg.seed)
    if not (run_dir / runs.CONFIG).is_file():  # one that is there says more
        write_config(cfg, run_dir)
    trainer.run()
    export_clip(task, trainer, mine)
    return mine


def export_clip(task: FlowerClipTask, trainer: Trainer, folder: Path) -> None:
    """Leave the CLIP with its averaged weights, those that previews look at; one process writes, all wait."""
    if trainer.accelerator.is_main_process:
        with trainer.ema.in_place():
            task.export(folder)
        logger.info("CLIP in %s", folder)
    trainer.accelerator.wait_for_everyone()
