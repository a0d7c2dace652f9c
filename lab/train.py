"""python -m lab.train +experiment=class_cond: train what the configuration says into a run's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lab import checkpoint
from lab.cli import entry_point
from lab.clip.load import WEIGHTS
from lab.config import build, check_types
from lab.continuing import alone_in, refuse_changes
from lab.errors import LabError
from lab.recipes import (
    check_autoencoder,
    check_diffusion,
    train_autoencoder,
    train_diffusion,
    train_flower_clip,
    train_judge,
)
from lab.runs import with_autoencoder

TASKS = {
    "diffusion": train_diffusion,
    "autoencoder": train_autoencoder,
    "flower_clip": train_flower_clip,
    "judge": train_judge,
}
WHOLE = ("flower_clip", "judge")  # tasks in which each picture of a batch meets others
TYPES = {
    "seed": int,
    "name": str | int,
    "clip_model": Literal["flower_clip", "flower_clip_small"],
    "resume": Literal["auto", "never", "always"],
    "preview.classes": Sequence[str | int] | None,
    "preview.prompts": Sequence[str] | None,
    **dict.fromkeys(("preview.count", "preview.held_out"), int),
    "latents.run": str | None,
    "latents.crops": int,
}


def check(cfg: DictConfig) -> None:
    """What can be told before data is read: the task, the loop's settings, and that the network can be built."""
    check_types(cfg, TYPES)
    if cfg.task not in TASKS:
        raise LabError(f"task={cfg.task}: use one of {', '.join(TASKS)}")
    if cfg.preview.count < 1:
        raise LabError(f"preview.count={cfg.preview.count}: use at least 1")
    if cfg.preview.held_out < 0:
        raise LabError(f"preview.held_out={cfg.preview.held_out}: use 0, for none, or more")
    for node in (cfg.training, cfg.data):
        build(node)
    try:
        build(cfg.clip_training)
    except LabError as error:
        raise LabError(str(error).replace("training.", "clip_training.", 1)) from error
    if cfg.task in WHOLE and cfg.training.accumulation > 1:
        pieces = cfg.training.accumulation
        raise LabError(f"training.accumulation={pieces}: a {cfg.task} needs its batches whole; use 1")
    if cfg.task == "autoencoder":
        check_autoencoder(cfg)
    if cfg.task == "diffusion":
        check_diffusion(cfg)


def check_resume(resume: str, run_dir: Path, steps: int) -> None:
    """LabError where `resume` rules out the checkpoints that `run_dir` has or lacks, and for what cannot go on.

    That are copies of a CLIP or judge, and runs that have had more than `steps` steps.
    """
    had = checkpoint.newest_step(run_dir / "checkpoints")
    there = had is not None
    if not there and (run_dir / WEIGHTS).is_file():
        raise LabError(f"{run_dir} holds a copy of a CLIP or judge, which cannot go on; use another hydra.run.dir")
    if resume == "never" and there:
        raise LabError(f"resume=never: {run_dir} holds a run; use another hydra.run.dir, or delete that one")
    if resume == "always" and not there:
        raise LabError(f"resume=always: no checkpoint in {run_dir / 'checkpoints'}; resume=auto starts anew")
    if had is not None and had > steps:
        raise LabError(f"training.steps={steps}: {run_dir} has had {had} already; use more, or another hydra.run.dir")


def train(cfg: DictConfig, run_dir: Path) -> None:
    """Train what a checked configuration says into `run_dir`, or go on with what is there; LabError if it may not."""
    check_resume(cfg.resume, run_dir, cfg.training.steps)
    cfg = with_autoencoder(cfg, run_dir)
    refuse_changes(cfg, run_dir)
    with alone_in(run_dir):
        TASKS[cfg.task](cfg, run_dir)


@entry_point("train", check)
def main(cfg: DictConfig) -> None:
    """Train into the folder that Hydra made for the run."""
    train(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
