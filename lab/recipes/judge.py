"""Training the judge."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from lab.config import build
from lab.data import Source
from lab.judging import OWN_JUDGE, Judge, JudgeTask, save_judge
from lab.judging.task import recognition
from lab.recipes.run import run
from lab.training import TrainingSettings

logger = logging.getLogger(__name__)


def train_judge(cfg: DictConfig, run_dir: Path) -> None:
    """A classifier of the set's pictures, left in the run's folder `judge/`."""
    settings: TrainingSettings = build(cfg.training)
    source: Source = build(cfg.data)
    images, held_out = source.load("train"), source.load("held_out")
    task = JudgeTask(
        images, held_out, settings.batch_size, cfg.seed, class_balanced=settings.class_balanced, flip=settings.flip
    )
    trainer = run(cfg, task, run_dir, settings)
    if trainer.accelerator.is_main_process:
        with trainer.ema.in_place():
            judge = task.judge()
        found = recognition(judge, held_out)
        note = {
            "image_set": images.name,
            "image_set_fingerprint": images.fingerprint,
            "held_out": {**found, "images": len(held_out), "fingerprint": held_out.fingerprint},
            "seed": cfg.seed,
        }
        save_judge(run_dir / OWN_JUDGE, Judge(judge.network, judge.class_names, judge.image_size, note))
        logger.info("judge in %s: top-1 %.1f %%, top-5 %.1f %% of %d held-out pictures", run_dir / OWN_JUDGE,
                    100 * found["top1"], 100 * found["top5"], len(held_out))  # fmt: skip
    trainer.accelerator.wait_for_everyone()
