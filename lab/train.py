"""python -m lab.train +experiment=class_cond: train what the configuration says into a run's folder."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lab.cli import entry_point
from lab.clip.task import FlowerClipTask
from lab.conditioning import ClipVector, Conditioner, Unconditional
from lab.conditioning.base import Request
from lab.conditioning.classes import class_index
from lab.config import build, check_types
from lab.data import BatchStream, Folder, ImageSet, Source
from lab.errors import LabError
from lab.render import loss_curve
from lab.runs import OWN_CLIP, REFERENCE, alone_in, build_model, clip_trained_on, refuse_changes, write_config
from lab.seeding import derive
from lab.training import DiffusionTask, Trainer, TrainingSettings

logger = logging.getLogger(__name__)


def train_diffusion(cfg: DictConfig, run_dir: Path) -> None:
    """A diffusion model on the configured data, conditioning, network and formulas."""
    settings: TrainingSettings = build(cfg.training)
    source: Source = build(cfg.data)
    conditioner: Conditioner = build(cfg.conditioning)
    of_its_own = isinstance(conditioner, ClipVector) and conditioner.pretrained == "flower_clip"
    if isinstance(conditioner, ClipVector) and not of_its_own:
        _ = conditioner.clip  # before the data is read: its weights may be out of reach
    images = source.load("train")
    if isinstance(conditioner, ClipVector) and of_its_own:
        check_preview_classes(cfg, images)
        conditioner.pretrained = str(own_clip(cfg, source, images, run_dir))
    torch.manual_seed(derive(cfg.seed, "conditioner"))
    fitted = conditioner.prepare(images, cfg.data.cache_dir)
    cfg = OmegaConf.merge(cfg, {"conditioning": fitted})  # type: ignore[assignment]
    torch.manual_seed(derive(cfg.seed, "init"))
    model = build_model(cfg)
    model.conditioner = conditioner
    stream = BatchStream(images, settings.batch_size, cfg.seed, settings.class_balanced, settings.flip)
    task = DiffusionTask(model, stream, cfg.seed, preview_request(cfg, images, conditioner), cfg.preview.count)
    run(cfg, task, run_dir, settings)


def train_flower_clip(cfg: DictConfig, run_dir: Path) -> None:
    """The lab's own CLIP, left in the run's folder `clip/` for `conditioning.pretrained=`."""
    settings: TrainingSettings = build(cfg.training)
    source: Source = build(cfg.data)
    task = flower_clip_task(cfg, source, source.load("train"), settings)
    trainer = run(cfg, task, run_dir, settings)
    export_clip(task, trainer, run_dir / OWN_CLIP)


def run(cfg: DictConfig, task: DiffusionTask | FlowerClipTask, run_dir: Path, settings: TrainingSettings) -> Trainer:
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
    if clip_trained_on(mine) == images.name:
        return mine
    reference = REFERENCE / cfg.clip_model
    if not isinstance(source, Folder) and clip_trained_on(reference) == images.name:  # any folder may have that name
        return reference
    settings: TrainingSettings = build(cfg.clip_training)
    logger.info("no flower_clip for %s yet: training %s first, %d steps", images.name, cfg.clip_model, settings.steps)
    task = flower_clip_task(cfg, source, images, settings)
    trainer = Trainer(task, run_dir / "clip_training", settings, cfg.seed)
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


def check_preview_classes(cfg: DictConfig, images: ImageSet) -> None:
    """LabError for a class to look at that the set does not have, before a CLIP is trained."""
    for name in (cfg.preview.classes or ()) if cfg.training.preview_every else ():
        try:
            class_index(name, images.class_names)
        except LabError as error:
            raise LabError(f"preview: {error}") from error


def preview_request(cfg: DictConfig, images: ImageSet, conditioner: Conditioner) -> Request:
    """What sample sheets show: what the config names, else the first 32 classes; LabError if it cannot be had."""
    if cfg.training.preview_every == 0:
        return Request()
    asked: dict[str, Any] = OmegaConf.to_container(cfg.preview)  # type: ignore[assignment]
    if asked["classes"] is None and asked["prompts"] is None and not isinstance(conditioner, Unconditional):
        asked["classes"] = list(images.class_names[:32]) or None
    try:
        request = Request(prompts=asked["prompts"], classes=asked["classes"])
        conditioner.inputs(request)
    except LabError as error:
        raise LabError(f"preview: {error}; training.preview_every=0 does without") from error
    return request


TASKS = {"diffusion": train_diffusion, "flower_clip": train_flower_clip}
TYPES = {
    "seed": int,
    "name": str | int,
    "clip_model": Literal["flower_clip", "flower_clip_small"],
    "resume": Literal["auto", "never", "always"],
    "preview.classes": Sequence[str | int] | None,
    "preview.prompts": Sequence[str] | None,
    "preview.count": int,
}


def check(cfg: DictConfig) -> None:
    """What can be told before data is read: the task, the loop's settings, and that the network can be built."""
    check_types(cfg, TYPES)
    if cfg.task not in TASKS:
        raise LabError(f"task={cfg.task}: use one of {', '.join(TASKS)}")
    if cfg.preview.count < 1:
        raise LabError(f"preview.count={cfg.preview.count}: use at least 1")
    for node in (cfg.training, cfg.clip_training, cfg.data):
        build(node)
    if cfg.task == "diffusion":
        model = build_model(cfg, empty=True)
        steps, most = model.sampling.num_inference_steps, model.parameterization.schedule.timesteps
        if steps > most:
            raise LabError(f"sampling.num_inference_steps={steps}: use at most diffusion.schedule.timesteps={most}")


def check_resume(resume: str, run_dir: Path) -> None:
    """LabError where `resume` rules out the checkpoints that `run_dir` has or lacks."""
    there = any((run_dir / "checkpoints").glob("step_*"))
    if resume == "never" and there:
        raise LabError(f"resume=never: {run_dir} holds a run; use another hydra.run.dir, or delete that one")
    if resume == "always" and not there:
        raise LabError(f"resume=always: no checkpoint in {run_dir / 'checkpoints'}; resume=auto starts anew")


def train(cfg: DictConfig, run_dir: Path) -> None:
    """Train what a checked configuration says into `run_dir`, or go on with what is there; LabError if it may not."""
    check_resume(cfg.resume, run_dir)
    refuse_changes(cfg, run_dir)
    with alone_in(run_dir):
        TASKS[cfg.task](cfg, run_dir)


@entry_point("train", check)
def main(cfg: DictConfig) -> None:
    """Train into the folder that Hydra made for the run."""
    train(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
