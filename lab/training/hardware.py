"""What the run is computed on, and in which precision."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration

from lab.device import computes_bf16, keep_freed_memory, this_process
from lab.errors import LabError
from lab.training.settings import TrainingSettings

logger = logging.getLogger(__name__)


def make_accelerator(
    precision: str = "auto", trackers: tuple[str, ...] = (), run_dir: Path | None = None
) -> Accelerator:
    """An Accelerator in the precision that is asked for, or that the hardware is good at.

    trackers: accelerate's, by name; they write into `run_dir`/trackers.
    """
    AcceleratorState._reset_state()  # a process may train twice, e.g. a CLIP first, each in its own precision
    on_cpu = not torch.accelerator.is_available()
    if on_cpu and "ACCELERATE_MIXED_PRECISION" in os.environ and "RANK" not in os.environ:
        logger.warning("accelerate launch started one process here; several on CPUs take --multi_gpu, odd as it sounds")
    keep_freed_memory()
    in_bf16 = computes_bf16(precision, this_process().device)
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="bf16" if in_bf16 else "no",
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(logging_dir=str(run_dir / "trackers") if run_dir else None),
    )


def check_same_step(accelerator: Accelerator, step: int, directory: Path) -> None:
    """LabError where processes would go on from different steps: those of machines that do not share the folder."""
    if accelerator.num_processes == 1:
        return
    steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).unique().tolist()
    if len(steps) > 1:
        found = ", ".join(map(str, steps))
        raise LabError(f"{directory}: the processes find steps {found}; let all machines share that folder")


@contextmanager
def tracked(accelerator: Accelerator, settings: TrainingSettings, name: str) -> Iterator[None]:
    """The trackers that the settings name, under a run's name, finished at the end."""
    if settings.trackers:
        knobs = {k: v for k, v in vars(settings).items() if isinstance(v, bool | int | float | str)}
        accelerator.init_trackers(name, knobs)
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
