"""The training loop: one for everything, on accelerate, resumable bit for bit."""

import logging
import math
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor
from tqdm import tqdm

from lab import checkpoint
from lab.errors import LabError
from lab.render.provenance import write_whole
from lab.seeding import derive
from lab.training.ema import EMA
from lab.training.log import TrainingLog
from lab.training.settings import TrainingSettings
from lab.training.task import Task

logger = logging.getLogger(__name__)


def hardware_has_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed rather than emulated: a CPU without its instructions is 3 times slower in it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def make_accelerator(precision: str = "auto") -> Accelerator:
    """An Accelerator in the precision that is asked for, or that the hardware is good at."""
    AcceleratorState._reset_state()  # a process may train twice, e.g. a CLIP first, each in its own precision
    on_cpu = not torch.accelerator.is_available()  # said aloud, or several processes on CPUs would not find each other
    in_bf16 = precision == "bf16" or (precision == "auto" and hardware_has_bf16(PartialState(cpu=on_cpu).device))
    return Accelerator(cpu=on_cpu, mixed_precision="bf16" if in_bf16 else "no")


class Trainer:
    """State of one run: the task, its optimiser and average, and where it stands."""

    def __init__(self, task: Task, run_dir: Path, settings: TrainingSettings, seed: int) -> None:
        self.task, self.run_dir, self.settings, self.seed = task, run_dir, settings, seed
        self.accelerator = make_accelerator(settings.precision)
        world = self.accelerator.num_processes
        if settings.batch_size % world:
            raise LabError(f"training.batch_size={settings.batch_size}: use a multiple of the {world} processes")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        task.to(self.accelerator.device).to(memory_format=torch.channels_last)
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
        mark = time.perf_counter()
        while self.step < settings.steps:
            window.append(self.train_step())
            bar.update()
            if not self._due(settings.log_every, settings.preview_every, settings.save_every):
                continue
            row = self._summary(window, time.perf_counter() - mark)
            bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
            if self._due(settings.preview_every):
                row |= self._preview()
            if log:
                log.write(row)
            if main and bar.disable:
                logger.info("  ".join(f"{key} {value:.5g}" for key, value in row.items()))
            if self._due(settings.save_every):
                self.save()
            window, mark = [], time.perf_counter()
        bar.close()

    def _due(self, *intervals: int) -> bool:
        every_so_often = any(every > 0 and self.step % every == 0 for every in intervals)
        return every_so_often or self.step == self.settings.steps

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

    def _summary(self, window: list[dict[str, Tensor]], seconds: float) -> dict[str, float]:
        """The row of the log for the steps in the window; LabError where one of them was not finite."""
        self._check_finite(window)
        means = {key: torch.stack([losses[key] for losses in window]).mean() for key in window[0]}
        self.seconds += seconds
        return {
            "step": self.step,
            "epoch": self.task.epoch(self.step),
            **{key: float(self.accelerator.reduce(value, "mean")) for key, value in means.items()},
            "lr": self.settings.lr_at(self.step - 1),
            "images_per_second": len(window) * self.settings.batch_size / seconds,
            "seconds": self.seconds,
        }

    def _check_finite(self, window: list[dict[str, Tensor]]) -> None:
        """LabError, before anything is saved, for a loss that is not finite, or a gradient that spoils weights."""
        numbers = torch.stack([entry["loss"] + entry["grad_norm"] for entry in window])
        bad = (~self.accelerator.reduce(numbers, "mean").isfinite()).nonzero().flatten().tolist()
        if not bad:
            return
        step = self.step - len(window) + bad[0]
        report = self.run_dir / "not_finite.csv"
        if self.accelerator.is_main_process:
            rows = "".join(f"{step},{index}\n" for index in self.task.culprits(step))
            write_whole(report, lambda staged: staged.write_text("step,index\n" + rows))
        raise LabError(
            f"loss or gradient of step {step} is not finite: its images' indices are in {report}, checkpoints "
            f"are untouched; look at those images, or lower training.lr={self.settings.lr}"
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
        checkpoint.save(self.directory, self.step, tensors, state, keep=self.settings.keep)

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        states = self.optimizer.state_dict()["state"]
        return {f"{self.names[i]}/{key}": value for i, entry in states.items() for key, value in entry.items()}

    def _resume(self) -> None:
        found = checkpoint.latest(self.directory)
        if found is None:
            return
        self.task.load_state_dict(found.tensors("raw"))
        self.ema.load(found.tensors("weights"))
        self._load_optimizer(found.tensors("optimizer"))
        self.step, self.seconds = found.step, float(found.state["seconds"])
        logger.info("resumed %s at step %d", self.run_dir, self.step)

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        """Take the optimiser's state, in the parameters' memory layout: the fused kernel relies on that."""
        parameters = dict(self.task.named_parameters())
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, field = key.rsplit("/", 1)
            if value.shape == parameters[name].shape:
                value = torch.empty_like(parameters[name], requires_grad=False).copy_(value)
            states.setdefault(self.names.index(name), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
