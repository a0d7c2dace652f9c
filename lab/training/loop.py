"""The training loop: one for everything, on accelerate, resumable bit for bit."""

import contextlib
import csv
import io
import logging
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from lab import checkpoint
from lab.errors import LabError, Stopped
from lab.render.provenance import write_whole
from lab.seeding import derive
from lab.training.ema import EMA
from lab.training.hardware import check_same_step, make_accelerator, tracked
from lab.training.log import TrainingLog
from lab.training.optimizer import clip, load_state, make_adamw, state_tensors
from lab.training.settings import TrainingSettings
from lab.training.stopping import StopRequest
from lab.training.task import Task

logger = logging.getLogger(__name__)
AVERAGE_EVERY = 4  # steps
AGREE_EVERY = 10  # steps; at these several processes ask each other whether one was told to stop


class Trainer:
    """State of one run: the task, its optimiser and average, and where it stands."""

    def __init__(self, task: Task, run_dir: Path, settings: TrainingSettings, seed: int) -> None:
        self.task, self.run_dir, self.settings, self.seed = task, run_dir, settings, seed
        self.accelerator = make_accelerator(settings.precision, settings.trackers, run_dir)
        self._check_batch()
        tf32 = settings.precision != "fp32"  # who asks for single precision gets it
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        task.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.trainable = {name: p for name, p in task.named_parameters() if p.requires_grad}
        adamw = make_adamw(self.trainable.values(), settings, self.accelerator.device)
        self.step, self.seconds = 0, 0.0
        self.warmed_from = 0  # step at which the optimiser was new
        self.window: list[dict[str, Tensor]] = []  # losses of the steps since the last row of the log ...
        self.window_seconds = 0.0  # ... and the time they took before the run was interrupted
        self.rated: tuple[int, float | None] = (0, None)  # step of the last preview, and what it found
        self.ema = EMA(task, settings.ema_decay, AVERAGE_EVERY)
        if settings.compile:
            task.compile()
        self.module, self.optimizer = self.accelerator.prepare(task, adamw)

    def _check_batch(self) -> None:
        """LabError unless the batch splits among processes and pieces."""
        settings, world = self.settings, self.accelerator.num_processes
        if settings.batch_size % (world * settings.accumulation):
            raise LabError(
                f"training.batch_size={settings.batch_size}: use a multiple of {world * settings.accumulation} "
                f"(processes x training.accumulation)"
            )
        if settings.accumulation > 1 and not self.task.divisible:
            raise LabError(f"training.accumulation={settings.accumulation}: {self.task.name} needs its batches whole")

    # -- the loop ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from where the run stands to `settings.steps`, with log, previews and checkpoints.

        Raises Stopped, with everything saved, when SIGINT or SIGTERM asks for it.
        """
        settings, main = self.settings, self.accelerator.is_main_process
        self._resume()
        log = TrainingLog(self.run_dir / "log.csv", self.step) if main else None
        bar = tqdm(total=settings.steps, initial=self.step, disable=not (main and sys.stderr.isatty()))
        mark, self.window_seconds = time.perf_counter() - self.window_seconds, 0.0
        with tracked(self.accelerator, settings, self.run_dir.name), bar, StopRequest() as request:
            while self.step < settings.steps:
                self.window.append(self.train_step())
                bar.update()
                if self._due(settings.log_every, settings.preview_every, settings.save_every):
                    row = self._summary(time.perf_counter() - mark)
                    bar.set_postfix(
                        {"loss": f"{row['loss']:.4f}", "images/s": f"{row['images_per_second']:.0f}"}, refresh=False
                    )
                    if self._due(settings.preview_every):
                        row |= self._preview()
                        self.rated = (self.step, row.get(self.task.rated_by or ""))
                    if log:
                        log.write(row)
                    self.accelerator.log(row, step=self.step)
                    if main and bar.disable:
                        logger.info("  ".join(f"{key} {value:.5g}" for key, value in row.items()))
                    self.window = []
                    if self._due(settings.save_every):
                        self.save()
                    mark = time.perf_counter()
                if self.step < settings.steps and self._told_to_stop(request):
                    self._stop(request, time.perf_counter() - mark)

    def _told_to_stop(self, request: StopRequest) -> bool:
        """Whether a signal asked for it; several processes agree on the step."""
        stop = request.signal is not None
        if self.accelerator.num_processes == 1:
            return stop
        if self.step % AGREE_EVERY:
            return False
        votes = torch.tensor(float(stop), device=self.accelerator.device)
        return float(self.accelerator.reduce(votes, "sum")) > 0

    def _stop(self, request: StopRequest, seconds: float) -> None:
        """Save where the run stands, the losses that no row holds yet included, and raise Stopped."""
        self.window_seconds = seconds
        if self.window:
            self._check_finite()
        self.save()
        number = request.signal or signal.SIGTERM
        raise Stopped(
            f"stopped by {signal.Signals(number).name} after step {self.step}, saved in {self.directory}; "
            "the same command goes on from there",
            number,
        )

    def _due(self, *intervals: int) -> bool:
        every_so_often = any(every > 0 and self.step % every == 0 for every in intervals)
        return every_so_often or self.step == self.settings.steps

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; returns this rank's mean losses as tensors still on the device."""
        settings, process = self.settings, self.accelerator
        inputs = self.task.inputs(self.step, process.process_index, process.num_processes)
        torch.manual_seed(derive(self.seed, "dropout", self.step, process.process_index))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(self.step, self.warmed_from)
        self.module.train()
        losses: dict[str, Tensor] = {}
        parts = self._parts(inputs)
        for part in parts:
            last = part is parts[-1]
            with contextlib.nullcontext() if last else process.no_sync(self.module):
                means = {key: value.mean() / len(parts) for key, value in self.module(**part).items()}
                process.backward(means["loss"])
            losses = {key: losses.get(key, 0) + value.detach() for key, value in means.items()}
        norm = clip(self.optimizer.optimizer, self.trainable.values(), settings.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.step)
        self.step += 1
        return losses | {"grad_norm": norm}

    def _parts(self, inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A step's inputs on the device, in as many pieces as gradients are accumulated over."""
        pieces = self.settings.accumulation
        moved = {key: value.to(self.accelerator.device, non_blocking=True) for key, value in inputs.items()}
        if pieces == 1:
            return [moved]
        chunks = {key: value.chunk(pieces) for key, value in moved.items()}
        return [{key: chunk[i] for key, chunk in chunks.items()} for i in range(pieces)]

    # -- numbers -------------------------------------------------------------------------------------

    def _summary(self, seconds: float) -> dict[str, float]:
        """The row of the log for the steps in the window; LabError where one of them was not finite."""
        self._check_finite()
        window = self.window
        means = {key: torch.stack([losses[key] for losses in window]).mean() for key in window[0]}
        self.seconds += seconds
        return {
            "step": self.step,
            "epoch": self.task.epoch(self.step),
            **{key: float(self.accelerator.reduce(value, "mean")) for key, value in means.items()},
            "lr": self.settings.lr_at(self.step - 1, self.warmed_from),
            "images_per_second": len(window) * self.settings.batch_size / seconds,
            "seconds": self.seconds,
        }

    def _check_finite(self) -> None:
        """LabError, before anything is saved, for a loss that is not finite, or a gradient that spoils weights."""
        window = self.window
        numbers = torch.stack([entry["loss"] + entry["grad_norm"] for entry in window])
        bad = (~self.accelerator.reduce(numbers, "mean").isfinite()).nonzero().flatten().tolist()
        if not bad:
            return
        step = self.step - len(window) + bad[0]
        report = self.run_dir / "not_finite.csv"
        if self.accelerator.is_main_process:
            lines = io.StringIO()
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerows([("step", "index", "file"), *((step, *image) for image in self.task.culprits(step))])
            write_whole(report, lambda staged: staged.write_text(lines.getvalue()))
        raise LabError(
            f"loss or gradient of step {step} is not finite: its images are named in {report}, checkpoints "
            f"are untouched; look at those images, or start anew elsewhere (hydra.run.dir=) with a lower "
            f"training.lr than {self.settings.lr:g}"
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
        """Averaged weights (what is sampled from), the raw ones, the optimiser's state, and what is not logged yet.

        Where a preview has just rated the averages, it tells that too: the best outlasts `settings.keep` newer ones.
        """
        self.accelerator.wait_for_everyone()
        window = [
            {key: float(self.accelerator.reduce(value, "mean")) for key, value in losses.items()}
            for losses in self.window
        ]
        if not self.accelerator.is_main_process:
            return
        raw = self.task.state_dict()
        tensors = {
            "weights": raw | self.ema.averages,
            "raw": raw,
            "optimizer": state_tensors(self.optimizer, list(self.trainable)),
        }
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "images": self.step * self.settings.batch_size,
            "window": window,
            "window_seconds": self.window_seconds,
            "warmed_from": self.warmed_from,
        }
        rated, rating = self.rated
        best = rating if rated == self.step else None
        checkpoint.save(self.directory, self.step, tensors, state, self.settings.keep, best)

    def _resume(self) -> None:
        """Go on from the newest checkpoint, or from a copy of one by `lab.export`, with its averages for all there is.

        The optimiser of a copy is new, and its learning rate warms up again.
        """
        found = checkpoint.latest(self.directory)
        check_same_step(self.accelerator, 0 if found is None else found.step, self.directory)
        if found is None:
            return
        copy = not found.holds("raw")
        averages = found.tensors("weights")
        try:
            self.task.load_state_dict(averages if copy else found.tensors("raw"))
            self.ema.load(averages)
            if not copy:
                load_state(self.optimizer, self.trainable, found.tensors("optimizer"))
        except (RuntimeError, KeyError, ValueError) as error:  # what torch makes of other names and shapes
            reason = "the network has changed since"
            if copy:
                reason += ", or the copy lacks what was only trained with"
            raise LabError(
                f"{found.path}: does not fit what is trained now, {reason}; use another hydra.run.dir"
            ) from error
        self.step, self.seconds = found.step, float(found.state["seconds"])
        self.warmed_from = found.step if copy else int(found.state.get("warmed_from", 0))
        device = self.accelerator.device
        self.window = [
            {key: torch.tensor(value, device=device) for key, value in losses.items()}
            for losses in found.state.get("window", [])
        ]
        self.window_seconds = float(found.state.get("window_seconds", 0.0))
        how = ", a copy: the optimiser is new" if copy else ""
        logger.info("resumed %s at step %d%s", self.run_dir, self.step, how)
