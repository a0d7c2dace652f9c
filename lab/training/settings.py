"""The knobs of the training loop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from lab.device import Precision
from lab.errors import LabError


@dataclass(frozen=True)
class TrainingSettings:
    """Knobs of the loop; intervals are in steps, 0 switches one off, and the last step counts for each.

    batch_size is global: processes share it, and each works through its part in `accumulation` pieces, which
    saves memory. trackers: names of accelerate's, e.g. tensorboard, beside the CSV log. precision: "auto" is
    bf16 where the hardware computes it, else fp32. A row is logged at every preview and save as well: a
    resumed run then writes the log of one that never stopped.
    Raises LabError for values that cannot be.
    """

    steps: int = 20_000
    batch_size: int = 64
    accumulation: int = 1
    lr: float = 4e-4
    lr_warmup: int = 200
    lr_decay: bool = False  # cosine from lr to 0 over all steps; more steps later stretch the curve
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    grad_clip: float = 1.0
    ema_decay: float = 0.9995
    precision: Precision = "auto"
    compile: bool = False
    log_every: int = 20
    preview_every: int = 1000
    save_every: int = 500
    keep: int = 2
    trackers: tuple[str, ...] = ()
    class_balanced: bool = False
    flip: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "trackers", tuple(self.trackers))
        check_trackers(self.trackers)
        for key in ("steps", "batch_size", "accumulation", "keep"):
            if getattr(self, key) < 1:
                raise LabError(f"training.{key}={getattr(self, key)}: use at least 1")
        for key in ("lr_warmup", "log_every", "preview_every", "save_every", "weight_decay", "grad_clip"):
            if not getattr(self, key) >= 0:
                raise LabError(f"training.{key}={getattr(self, key)}: use 0 or more")
        for key, value in (("ema_decay", self.ema_decay), *(("betas", beta) for beta in self.betas)):
            if not 0 <= value < 1:
                raise LabError(f"training.{key}={getattr(self, key)}: use numbers from 0 up to, not including, 1")
        if self.batch_size % self.accumulation:
            raise LabError(
                f"training.accumulation={self.accumulation}: must divide training.batch_size={self.batch_size}"
            )
        if not 0 < self.lr < math.inf:
            raise LabError(f"training.lr={self.lr}: use a positive number")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise LabError(f"training.precision={self.precision}: use auto, fp32 or bf16")

    def lr_at(self, step: int, started: int = 0) -> float:
        """Learning rate of step `step` (0-based): linear warm-up from `started` on, then constant or a cosine to 0."""
        warmup = min(1.0, (step - started + 1) / (self.lr_warmup + 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.lr_decay else 1.0
        return self.lr * warmup * decay


def check_trackers(names: Sequence[str]) -> None:
    """LabError for a tracker that accelerate does not know, or whose package is not installed."""
    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    installed = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in known:
            raise LabError(f"training.trackers={list(names)}: use some of {', '.join(known)}")
        if name not in installed:
            raise LabError(f"training.trackers={list(names)}: pip install {name} first")
