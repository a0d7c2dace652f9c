"""The training loop: one for everything, on accelerate, resumable bit for bit."""

import logging
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor
from tqdm import tqdm

from lab import checkpoint
from lab.errors import LabError
from lab.seeding import derive
from lab.training.ema import EMA
from lab.training.log import TrainingLog
from lab.training.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSettings:
    """Knobs of the loop; intervals are in steps, 0 switches one off.

    batch_size is global: processes share it. precision: "auto" is bf16 where the hardware computes it, else fp32.
    Raises LabError for values that cannot be.
    """

    steps: int = 20_000
    batch_size: int = 64
    lr: float = 4e-4
    lr_warmup: int = 200
    lr_decay: bool = False  # cosine from lr to 0 over all steps
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    grad_clip: float = 1.0
    ema_decay: float = 0.9995
    precision: str = "auto"
    compile: bool = False
    log_every: int = 20
    preview_every: int = 1000
    save_every: int = 1000
    keep: int = 2
    class_balanced: bool = False
    flip: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for key in ("steps", "batch_size", "log_every"):
            if getattr(self, key) < 1:
                raise LabError(f"training.{key}={getattr(self, key)}: use at least 1")
        for key in ("lr_warmup", "preview_every", "save_every", "keep", "weight_decay", "grad_clip"):
            if getattr(self, key) < 0:
                raise LabError(f"training.{key}={getattr(self, key)}: use 0 or more")
        if not self.lr > 0:
            raise LabError(f"training.lr={self.lr}: use a positive number")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise LabError(f"training.precision={self.precision}: use auto, fp32 or bf16")

    def lr_at(self, step: int) -> float:
        """Learning rate of step `step` (0-based): linear warm-up, then constant or a cosine to 0."""
        warmup = min(1.0, (step + 1) / (self.lr_warmup + 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.lr_decay else 1.0
        return self.lr * warmup * decay


def hardware_has_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed rather than emulated; CPUs without its instructions are 3 times slower in it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def make_accelerator(precision: str = "auto") -> Accelerator:
    """An Accelerator in the precision that is asked for, or that the hardware is good at."""
    in_bf16 = precision == "bf16" or (precision == "auto" and hardware_has_bf16(PartialState().device))
    return Accelerator(mixed_precision="bf16" if in_bf16 else "no")


class Trainer:
    """State of one run: the task, its optimiser and average, and where it stands."""

    def __init__(self, task: Task, run_dir: Path, settings: TrainingSettings, seed: int) -> None:
        self.task, self.run_dir, self.settings, self.seed = task, run_dir, settings, seed
        self.accelerator = make_accelerator(settings.precision)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        task.to(self.accelerator.device, memory_format=torch.channels_last)
        trainable = {name: p for name, p in task.named_parameters() if p.requires_grad}
        self.names = list(trainable)
        optimizer = torch.optim.AdamW(
            trainable.values(),
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=self.accelerator.device.type in ("cpu", "cuda"),
        )
        self.step, self.seconds = 0, 0.0
        self.ema = EMA(task, settings.ema_decay)
        if settings.compile:
            task.compile()
        self.module, self.optimizer = self.accelerator.prepare(task, optimizer)

    # -- the loop ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from where the run stands to `settings.steps`, with log, previews and checkpoints."""
        settings, main = self.settings, self.accelerator.is_main_process
        self._resume()
        log = TrainingLog(self.run_dir / "log.csv", self.step) if main else None
        bar = tqdm(total=settings.steps, initial=self.step, disable=not (main and sys.stderr.isatty()))
        window: list[dict[str, Tensor]] = []
        since, mark = self.step, time.perf_counter()
        while self.step < settings.steps:
            window.append(self.train_step())
            bar.update()
            if self._due(settings.log_every):
                row = self._summary(window, since)
                now = time.perf_counter()
                self.seconds += now - mark
                row["images_per_second"] = (self.step - since) * settings.batch_size / (now - mark)
                row["seconds"] = self.seconds
                bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
                if self._due(settings.preview_every):
                    row |= self._preview()
                if log:
                    log.write(row)
                if main and not sys.stderr.isatty():
                    logger.info("step %d  %s", self.step, "  ".join(f"{k} {v:.5g}" for k, v in row.items() if k != "step"))
                window, since, mark = [], self.step, time.perf_counter()
            if self._due(settings.save_every):
                if window:
                    self._check_finite(window, since)
                started = time.perf_counter()
                self.save()
                mark += time.perf_counter() - started
        bar.close()

    def _due(self, every: int) -> bool:
        return self.step == self.settings.steps or (every > 0 and self.step % every == 0)

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; returns this rank's mean losses as tensors still on the device."""
        settings, process = self.settings, self.accelerator
        inputs = self.task.inputs(self.step, process.process_index, process.num_processes)
        inputs = {key: value.to(process.device, non_blocking=True) for key, value in inputs.items()}
        torch.manual_seed(derive(self.seed, "dropout", self.step, process.process_index))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(self.step)
        self.module.train()
        losses = {key: value.mean() for key, value in self.module(**inputs).items()}
        process.backward(losses["loss"])
        limit = settings.grad_clip or math.inf
        norm = process.clip_grad_norm_(self.module.parameters(), limit)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.step)
        self.step += 1
        return {key: value.detach() for key, value in losses.items()} | {"grad_norm": norm.detach()}

    # -- numbers -------------------------------------------------------------------------------------

    def _summary(self, window: list[dict[str, Tensor]], since: int) -> dict[str, float]:
        self._check_finite(window, since)
        means = {key: torch.stack([losses[key] for losses in window]).mean() for key in window[0]}
        reduced = {key: float(self.accelerator.reduce(value, "mean")) for key, value in means.items()}
        return {"step": self.step, "epoch": self.task.epoch(self.step), **reduced, "lr": self.settings.lr_at(self.step - 1)}

    def _check_finite(self, window: list[dict[str, Tensor]], since: int) -> None:
        losses = self.accelerator.reduce(torch.stack([entry["loss"] for entry in window]), "mean")
        bad = (~losses.isfinite()).nonzero().flatten().tolist()
        if not bad:
            return
        step = since + bad[0]
        report = self.run_dir / "not_finite.csv"
        if self.accelerator.is_main_process:
            rows = "".join(f"{step},{index}\n" for index in self.task.culprits(step))
            report.write_text("step,index\n" + rows)
        raise LabError(
            f"the loss of step {step} is not finite: its images' indices are in {report}, checkpoints are untouched; "
            f"look at those images, or lower training.lr={self.settings.lr}"
        )

    @torch.no_grad()
    def _preview(self) -> dict[str, float]:
        if not (self.settings.preview_every and self.accelerator.is_main_process):
            return {}
        self.task.eval()
        with self.ema.in_place():
            return self.task.preview(self.run_dir / "samples", self.step)

    # -- checkpoints ---------------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """Where the run's checkpoints are."""
        return self.run_dir / "checkpoints"

    def save(self) -> None:
        """Averaged weights (what is sampled from), the raw ones, and the optimiser's state."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        raw = self.task.state_dict()
        tensors = {"weights": raw | self.ema.averages, "raw": raw, "optimizer": self._optimizer_tensors()}
        state = {"step": self.step, "seconds": self.seconds, "images": self.step * self.settings.batch_size}
        checkpoint.save(self.directory, self.step, tensors, state, keep=max(1, self.settings.keep))

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        states = self.optimizer.state_dict()["state"]
        return {f"{self.names[i]}/{key}": value for i, entry in states.items() for key, value in entry.items()}

    def _resume(self) -> None:
        found = checkpoint.latest(self.directory)
        if found is None:
            return
        self.task.load_state_dict(found.tensors("raw"))
        self.ema.load(found.tensors("weights"))
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in found.tensors("optimizer").items():
            name, field = key.rsplit("/", 1)
            states.setdefault(self.names.index(name), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        self.step, self.seconds = found.step, float(found.state["seconds"])
        logger.info("resumed %s at step %d", self.run_dir, self.step)
