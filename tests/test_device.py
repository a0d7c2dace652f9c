"""In which precision a device computes."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from lab.device import computes_bf16, whole_fp32
from lab.errors import LabError


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_bf16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr("lab.device.hardware_has_bf16", lambda device: has)
    cpu = torch.device("cpu")
    assert computes_bf16("auto", cpu) is has
    assert computes_bf16("bf16", cpu) and not computes_bf16("fp32", cpu)


def test_another_precision_is_refused() -> None:
    with pytest.raises(LabError, match="precision=fp16: use auto, fp32 or bf16"):
        computes_bf16("fp16", torch.device("cpu"))


def allowed_tf32() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_whole_fp32_is_not_tf32_and_leaves_what_was_there() -> None:
    before = allowed_tf32()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        with whole_fp32(False):
            assert allowed_tf32() == (True, True)
        with whole_fp32():
            assert allowed_tf32() == (False, False)
        assert allowed_tf32() == (True, True)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


TF32 = """
import torch
from lab.device import whole_fp32
torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "tf32"
for wanted in (True, False):
    with whole_fp32(wanted):
        print(torch.backends.cuda.matmul.fp32_precision)
"""


def test_what_a_person_said_of_single_precision_holds() -> None:
    """In a process of its own: torch allows no way back."""
    said = subprocess.run([sys.executable, "-c", TF32], capture_output=True, check=True, text=True).stdout
    assert said.split() == ["tf32", "tf32"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its OpenMP may be another")
@pytest.mark.parametrize(
    ("module", "before", "spins"),
    [
        ("lab.device", {}, "10000"),
        ("experiments.plane", {}, "10000"),
        ("lab.device", {"GOMP_SPINCOUNT": "77"}, "77"),
        ("lab.device", {"OMP_WAIT_POLICY": "passive"}, "0"),
    ],
)
def test_waiting_threads_spin_for_a_short_time_only(module: str, before: dict[str, str], spins: str) -> None:
    """What GNU's OpenMP itself says when it is loaded after the lab; what the user asked for stays."""
    unasked = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = {**unasked, "OMP_DISPLAY_ENV": "verbose", **before}
    command = [sys.executable, "-c", f"import {module}"]
    said = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stderr
    if "GOMP" not in said:
        pytest.skip("torch has another OpenMP")
    assert f"GOMP_SPINCOUNT = '{spins}'" in said


FAULTS = """
import resource, torch
from lab.device import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20 // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = [faults() for _ in range(8)]
keep_freed_memory()
kept = [faults() for _ in range(8)]
print(sorted(given_back)[4], sorted(kept)[4])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc keeps or gives back by its own rules")
@pytest.mark.skipif(torch.accelerator.is_available(), reason="computes elsewhere")
def test_freed_memory_is_not_paged_in_again() -> None:
    """Where memory lies is drawn anew in each process, and in one of some sixty it was given back all the same."""
    for _ in range(3):
        said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True, text=True).stdout
        given_back, kept = map(int, said.split())
        if 10 * kept < given_back:
            return
    pytest.fail(f"{kept} faults, and {given_back} before")
