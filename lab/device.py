"""Where this process computes, and in which precision."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from accelerate import PartialState

from lab.errors import LabError

Precision = Literal["auto", "fp32", "bf16"]


def local_device() -> torch.device:
    """This process's GPU, or the CPU."""
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")


def usable(device: torch.device | str | None) -> torch.device:
    """The device of this name, by default CUDA where there is one; LabError for one that cannot be used here."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # no such device, or torch was built without it
        raise LabError(f"device={device}: cannot be used here ({str(error).splitlines()[0]})") from error
    return chosen


def this_process() -> PartialState:
    """This process among those that `accelerate launch` started; without it, the only one."""
    # The CPU is said aloud, or several processes on CPUs would not find each other.
    return PartialState(cpu=not torch.accelerator.is_available())


def keep_freed_memory() -> None:
    """On the CPU, with glibc: what is freed stays in the process, for the next step to have.

    Else glibc may give large tensors back at each step and page them in again at the next. More than 2 GiB free at the
    heap's end still go. See mallopt(3).
    """
    if torch.accelerator.is_available() or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in ((-4, 0), (-1, 2**31 - 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD
        mallopt(parameter, value)


@contextmanager
def whole_fp32(wanted: bool = True) -> Iterator[None]:
    """Inside, where wanted, single precision on NVIDIA's GPUs is that, and not TF32, whose fractions have 10 bits.

    Who has set torch's `fp32_precision`, which excludes these flags, has decided for himself.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    try:
        before = (matmul.allow_tf32, cudnn.allow_tf32) if wanted else None
    except RuntimeError:  # of another kind of setting
        before = None
    if before is None:
        yield
        return
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def hardware_has_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed rather than emulated: a CPU without its instructions is 3 times slower in it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def computes_bf16(precision: str, device: torch.device) -> bool:
    """Whether this precision means bf16 there: "auto" does where the hardware computes it. LabError for an unknown."""
    if precision not in get_args(Precision):
        raise LabError(f"precision={precision}: use {', '.join(get_args(Precision)[:-1])} or {get_args(Precision)[-1]}")
    return precision == "bf16" or (precision == "auto" and hardware_has_bf16(device))
