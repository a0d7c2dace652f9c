"""What the run is computed on, and in which precision."""

import logging
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration

from lab.device import computes_bf16, keep_freed_memory, this_process

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
