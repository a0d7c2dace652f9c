"""Training the lab's own CLIP, for itself or for a run that needs one."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from lab import runs
from lab.clip.load import CONFIG as CLIP_CONFIG
from lab.clip.load import WEIGHTS
from lab.clip.task import FlowerClipTask
from lab.config import build
from lab.continuing import write_config
from lab.data import Folder, ImageSet, Source
from lab.device import this_process
from lab.recipes.run import run
from lab.render.provenance import write_whole
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
    """The folder of a flower_clip: the run's, or a copy of the reference one for this set, or one trained now.

    A copy, since what a run has learned from must stay with it when a later lab keeps another.
    """
    mine = run_dir / runs.OWN_CLIP
    if runs.clip_trained_on(mine) is not None:  # whose vectors the run has learned from, wherever its data lie now
        return mine
    reference = runs.REFERENCE / cfg.clip_model
    own_name = not isinstance(source, Folder)  # a folder may be called like any set
    if own_name and runs.clip_trained_on(reference) == images.name:
        if (run_dir / runs.CONFIG).is_file():  # a run of before, without a copy
            return reference
        with this_process().main_process_first():
            if runs.clip_trained_on(mine) is None:
                _copy_clip(reference, mine)
        return mine
    settings: TrainingSettings = build(cfg.clip_training)
    logger.info("no flower_clip for %s yet: training %s first, %d steps", images.name, cfg.clip_model, settings.steps)
    task = flower_clip_task(cfg, source, images, settings)
    trainer = Trainer(task, run_dir / runs.CLIP_TRAINING, settings, cfg.seed)
    if not (run_dir / runs.CONFIG).is_file():  # one that is there says more
        write_config(cfg, run_dir)
    trainer.run()
    export_clip(task, trainer, mine)
    return mine


def _copy_clip(source: Path, target: Path) -> None:
    """What makes a CLIP, without what is told of it."""
    for name in (WEIGHTS, CLIP_CONFIG):  # the second is what makes it one
        content = (source / name).read_bytes()
        write_whole(target / name, lambda staged, content=content: staged.write_bytes(content))  # type: ignore[misc]


def export_clip(task: FlowerClipTask, trainer: Trainer, folder: Path) -> None:
    """Leave the CLIP with its averaged weights, those that previews look at; one process writes, all wait."""
    if trainer.accelerator.is_main_process:
        with trainer.ema.in_place():
            task.export(folder)
        logger.info("CLIP in %s", folder)
    trainer.accelerator.wait_for_everyone()
