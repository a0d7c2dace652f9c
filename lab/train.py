"""python -m lab.train +experiment=class_cond: train what the configuration says into a run's folder."""

import logging
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lab.cli import entry_point
from lab.clip.task import FlowerClipTask
from lab.conditioning import ClipVector, Conditioner
from lab.conditioning.base import Request
from lab.config import build
from lab.data import BatchStream, ImageSet, Source
from lab.errors import LabError
from lab.render import loss_curve
from lab.runs import OWN_CLIP, REFERENCE, build_model, clip_trained_on, refuse_changes, write_config
from lab.seeding import derive
from lab.training import DiffusionTask, Trainer, TrainingSettings

logger = logging.getLogger(__name__)


def train_diffusion(cfg: DictConfig, run_dir: Path) -> None:
    """A diffusion model on the configured data, conditioning, network and formulas."""
    settings: TrainingSettings = build(cfg.training)
    source: Source = build(cfg.data)
    images = source.load("train")
    conditioner: Conditioner = build(cfg.conditioning)
    if isinstance(conditioner, ClipVector) and conditioner.pretrained == "flower_clip":
        conditioner.pretrained = str(own_clip(cfg, source, images, run_dir))
    fitted = conditioner.prepare(images, cfg.data.cache_dir)
    cfg = OmegaConf.merge(cfg, {"conditioning": fitted})  # type: ignore[assignment]
    torch.manual_seed(derive(cfg.seed, "init"))
    model = build_model(cfg)
    model.conditioner = conditioner
    stream = BatchStream(images, settings.batch_size, cfg.seed, settings.class_balanced, settings.flip)
    task = DiffusionTask(model, stream, cfg.seed, preview_request(cfg, images), cfg.preview.count)
    run(cfg, task, run_dir, settings)


def train_flower_clip(cfg: DictConfig, run_dir: Path) -> None:
    """The lab's own CLIP, left in the run's folder `clip/` for `conditioning.pretrained=`."""
    settings: TrainingSettings = build(cfg.training)
    source: Source = build(cfg.data)
    task = flower_clip_task(cfg, source, source.load("train"), settings)
    run(cfg, task, run_dir, settings)
    logger.info("CLIP in %s", task.export(run_dir / OWN_CLIP))


def run(cfg: DictConfig, task: DiffusionTask | FlowerClipTask, run_dir: Path, settings: TrainingSettings) -> None:
    """Train into `run_dir`, beside the configuration; ends with the curve of the loss."""
    write_config(cfg, run_dir)
    trainer = Trainer(task, run_dir, settings, cfg.seed)
    with torch.random.fork_rng(devices=[]):
        trainer.run()
    if trainer.accelerator.is_main_process:
        loss_curve(run_dir / "log.csv", run_dir / "loss.png")


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
    )


def own_clip(cfg: DictConfig, source: Source, images: ImageSet, run_dir: Path) -> Path:
    """The folder of a flower_clip trained on this set: the run's, the reference one, or one trained now."""
    mine = run_dir / OWN_CLIP
    for folder in (mine, REFERENCE / "flower_clip"):
        if clip_trained_on(folder) == images.name:
            return folder
    settings: TrainingSettings = build(cfg.clip_training)
    logger.info("no flower_clip for %s yet: training %s first, %d steps", images.name, cfg.clip_model, settings.steps)
    task = flower_clip_task(cfg, source, images, settings)
    Trainer(task, run_dir / "clip_training", settings, cfg.seed).run()
    return task.export(mine)


def preview_request(cfg: DictConfig, images: ImageSet) -> Request:
    """What sample sheets show: what the config names, else the first 32 classes."""
    if cfg.preview.prompts is not None:
        return Request(prompts=list(cfg.preview.prompts))
    if "Unconditional" in cfg.conditioning._target_ or not images.class_names:
        return Request()
    chosen = images.class_names[:32] if cfg.preview.classes is None else cfg.preview.classes
    return Request(classes=list(chosen))


TASKS = {"diffusion": train_diffusion, "flower_clip": train_flower_clip}


def check(cfg: DictConfig) -> None:
    """What can be told before data is read: the task, the loop's settings, and that the network can be built."""
    if cfg.task not in TASKS:
        raise LabError(f"task={cfg.task}: use one of {', '.join(TASKS)}")
    build(cfg.training)
    build(cfg.data)
    if cfg.task == "diffusion":
        build_model(cfg, empty=True)


@entry_point("train", check)
def main(cfg: DictConfig) -> None:
    """Train into the run's folder, or go on with what is there."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    refuse_changes(cfg, run_dir)
    TASKS[cfg.task](cfg, run_dir)


if __name__ == "__main__":
    main()
