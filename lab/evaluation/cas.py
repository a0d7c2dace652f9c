"""Classification accuracy score: what a classifier learns from generated pictures alone (Ravuri & Vinyals 2019)."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from lab.data import ImageSet
from lab.data.base import fingerprint
from lab.data.cache import locked
from lab.judging import JudgeTask
from lab.judging.task import recognition
from lab.training import Trainer, TrainingSettings


def classification_accuracy(
    pixels: Tensor, labels: Tensor, held_out: ImageSet, root: Path, steps: int, seed: int = 0
) -> dict[str, float]:
    """{"top1", "top5"} on real held-out pictures of a judge trained on these alone, `steps` steps.

    pixels (N, S, S, 3) uint8, labels (N,). It is kept in `root` under a name of its own pictures, steps and seed:
    asked for again it is there, and stopped it goes on from its last checkpoint. Compare with what as many real
    pictures and as many steps give, not with the judge, which saw more of both.
    """
    content = hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()
    key = fingerprint("cas", content, labels.tolist(), list(held_out.class_names), steps, seed)
    images = ImageSet("cas", pixels, labels, held_out.class_names, held_out.image_size, (), (), key)
    settings = TrainingSettings(
        steps=steps, batch_size=64, lr=1e-3, lr_warmup=min(200, steps // 5), lr_decay=True, weight_decay=0.05,
        ema_decay=0.99, preview_every=0, save_every=200, log_every=50, keep=1,
    )  # fmt: skip
    task = JudgeTask(images, held_out, settings.batch_size, seed)
    with locked(root / f"cas-{key}.lock"):  # two evaluations may want the same one
        trainer = Trainer(task, root / f"cas-{key}", settings, seed)
        with torch.random.fork_rng(devices=[]):
            trainer.run()
        with trainer.ema.in_place():
            return recognition(task.judge(), held_out)
