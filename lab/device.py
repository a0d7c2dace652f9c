"""Where this process computes."""

import os

import torch


def local_device() -> torch.device:
    """This process's GPU, or the CPU."""
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
