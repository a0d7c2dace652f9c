"""Classification accuracy score: what a classifier learns from generated pictures alone (Ravuri & Vinyals 2019)."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab.data import ImageSet
from lab.data.base import fingerprint
from lab.data.cache import locked
from lab.device import computes_bf16, local_device
from lab.evaluation.worth import Worth, floor_pictures
from lab.judging import JudgeTask
from lab.judging.task import recognition
from lab.render import to_uint8
from lab.training import Trainer, TrainingSettings

BATCH = 64


def cas_seconds(held_out: ImageSet, steps: int) -> float:
    """Seconds that one classifier will take, told by three of its steps, the first of which is slower."""
    task, device = JudgeTask(held_out, held_out, BATCH, seed=0), local_device()
    task.to(device)
    took = []
    for step in range(3):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_bf16("auto", device)):
            losses = task(**{key: value.to(device) for key, value in task.inputs(step).items()})
        losses["loss"].mean().backward()
        took.append(time.perf_counter() - began)
    return min(took) * steps


def classification_accuracy(
    pixels: Tensor, labels: Tensor, held_out: ImageSet, root: Path, steps: int, seed: int = 0, flip: bool = True
) -> dict[str, float]:
    """{"top1", "top5"} on real held-out pictures of a judge trained on these alone, `steps` steps.

    pixels (N, S, S, 3) uint8, labels (N,); flip: whether half of them are mirrored. It is kept in `root` under a name
    of its own pictures, steps and seed: asked for again it is there, and stopped it goes on from its last checkpoint.
    Compare with what as many real pictures and as many steps give, not with the judge, which saw more of both.
    """
    content = hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()
    key = fingerprint(
        "cas", content, labels.tolist(), list(held_out.class_names), steps, seed, *([] if flip else ["upright"])
    )
    images = ImageSet("cas", pixels, labels, held_out.class_names, held_out.image_size, (), (), key)
    settings = TrainingSettings(
        steps=steps, batch_size=BATCH, lr=1e-3, lr_warmup=min(200, steps // 5), lr_decay=True, weight_decay=0.05,
        ema_decay=0.99, preview_every=0, save_every=200, log_every=50, keep=1,
    )  # fmt: skip
    task = JudgeTask(images, held_out, settings.batch_size, seed, flip=flip)
    with locked(root / f"cas-{key}.lock"):  # two evaluations may want the same one
        trainer = Trainer(task, root / f"cas-{key}", settings, seed)
        with torch.random.fork_rng(devices=[]):
            trainer.run()
        with trainer.ema.in_place():
            return recognition(task.judge(), held_out)


def with_cas(
    found: Worth,
    steps: int,
    samples: tuple[torch.Tensor, torch.Tensor],
    train: ImageSet,
    held_out: ImageSet,
    folder: Path,
    shared: Path,
    flip: bool = True,
) -> Worth:
    """The same with what classifiers learn from the samples alone, and from as many training pictures alone.

    samples   pixels (C, S, S, 3) uint8 and classes (C,), of the first C pictures of the order that `floor_pictures`
              goes by, which are the real ones here
    flip      whether half of the pictures that they learn from are mirrored
    shared    where the classifier of the real pictures lies, the same for all runs and guidance scales
    """
    floor, _ = floor_pictures(train, len(samples[1]), found.seed)
    real = (torch.from_numpy(to_uint8(train.view(floor))), train.labels[floor])
    for side, (pixels, labels), root in (("generated", samples, folder), ("real", real, shared)):
        scores = classification_accuracy(pixels, labels, held_out, root, steps, found.seed, flip)
        found = found.plus(side, **{f"cas_{name}": share for name, share in scores.items()})
    return replace(found, cas_n=len(samples[1]))


def with_earlier_cas(found: Worth, path: Path, facts: Mapping[str, Any]) -> tuple[Worth, int]:
    """The same with what `with_cas` found of the same samples before, and its steps; 0 where it did not.

    path      the evaluation.json of before
    facts     all that samples and real pictures depend on, as it was told there; the judge, which has no part in CAS,
              may be another
    """
    try:
        before = dict(json.loads(path.read_text()))
        steps, count = int(before["cas_steps"]), int(before["cas_n"])
        scores = {side: {key: before[side][key] for key in ("cas_top1", "cas_top5")} for side in ("generated", "real")}
    except (OSError, ValueError, TypeError, KeyError):
        return found, 0
    as_told = json.loads(json.dumps(dict(facts), default=str))
    if not steps or any(before.get(key) != value for key, value in as_told.items() if key not in ("run", "batch_size")):
        return found, 0
    for side, of_side in scores.items():
        found = found.plus(side, **of_side)
    return replace(found, cas_n=count), steps
