"""Where this process computes."""

import os

import torch
from accelerate import PartialState


def local_device() -> torch.device:
    """This process's GPU, or the CPU."""
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")


def this_process() -> PartialState:
    """This process among those that `accelerate launch` started; without it, the only one."""
    # The CPU is said aloud, or several processes on CPUs would not find each other.
    return PartialState(cpu=not torch.accelerator.is_available())
