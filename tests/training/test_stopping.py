"""A run that a signal stops saves where it is, and goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import Toy, rows, saved, steps, train

from lab import checkpoint
from lab.errors import Stopped
from lab.training.stopping import SIGNALS, StopRequest

ROOT = Path(__file__).resolve().parents[2]


class Told(Toy):
    """Is sent a signal during step `when`."""

    def __init__(self, when: int, number: signal.Signals) -> None:
        super().__init__()
        self.when, self.number = when, number

    def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        if step == self.when:
            os.kill(os.getpid(), self.number)
        return super().inputs(step, rank, world)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("when", [0, 5, 8])  # after steps 1, 6 and 9; rows are due at 4, 8 and 10
def test_it_ends_after_the_step_saved_and_goes_on_as_in_one_go(
    tmp_path: Path, number: signal.Signals, when: int
) -> None:
    before = [signal.getsignal(s) for s in SIGNALS]
    with pytest.raises(Stopped, match=f"{number.name} after step {when + 1}") as stopped:
        train(tmp_path / "run", Told(when, number), log_every=4)
    assert stopped.value.signal == number
    assert [signal.getsignal(s) for s in SIGNALS] == before
    assert saved(tmp_path / "run") == [when + 1]

    goes_on = train(tmp_path / "run", log_every=4)
    whole = train(tmp_path / "whole", log_every=4)
    assert steps(tmp_path / "run") == [4, 8, 10]
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")  # the steps before the signal are in the means
    ours, theirs = (checkpoint.latest(run / "checkpoints") for run in (tmp_path / "run", tmp_path / "whole"))
    assert ours is not None and theirs is not None
    for name in ("weights", "raw", "optimizer"):
        mine, other = ours.tensors(name), theirs.tensors(name)
        assert all(torch.equal(mine[key], other[key]) for key in other)
    assert goes_on.step == whole.step == 10


def test_a_signal_at_the_last_step_comes_too_late(tmp_path: Path) -> None:
    assert train(tmp_path, Told(9, signal.SIGTERM)).step == 10


def test_the_time_of_an_interrupted_row_is_counted(tmp_path: Path) -> None:
    class Slow(Told):
        def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
            time.sleep(0.05)
            return super().inputs(step, rank, world)

    with pytest.raises(Stopped):
        train(tmp_path, Slow(5, signal.SIGINT), log_every=0)
    assert train(tmp_path, log_every=0).seconds > 6 * 0.05


def test_a_second_signal_acts_as_it_did_before() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        _a_second_signal_interrupts()
    finally:
        signal.signal(signal.SIGINT, before)


def _a_second_signal_interrupts() -> None:
    with StopRequest() as request:
        signal.raise_signal(signal.SIGINT)  # in this thread, at once
        assert request.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_thread_trains_without_handlers(tmp_path: Path) -> None:
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(train(tmp_path).step))
    thread.start()
    thread.join()
    assert done == [10]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_command_ends_with_one_line_and_the_signals_code(
    tmp_path: Path, tiny_settings: tuple[str, ...], number: signal.Signals
) -> None:
    run = tmp_path / "run"
    overrides = [*tiny_settings, "+experiment=class_cond", "conditioning.dim=8", f"hydra.run.dir={run}"]
    child = subprocess.Popen(
        [sys.executable, "-m", "lab.train", *overrides, "training.steps=1000000", "training.save_every=0"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (run / "log.csv").exists():
        time.sleep(0.02)
    child.send_signal(number)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 128 + number, said
    assert "Traceback" not in said
    assert f"stopped by {number.name} after step" in said.splitlines()[-1]
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    assert found.step == steps(run)[-1]


PAIR = """
import os, signal, sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from test_stopping import *
from toy import settings
from lab.training import Trainer
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
task = Told(4, signal.SIGTERM) if rank == 1 else Toy()
try:
    Trainer(task, Path({run!r}), settings(steps=40, log_every=0), seed=0).run()
except Stopped as stop:
    sys.exit(0 if "after step 10" in str(stop) else 1)
sys.exit(2)
"""


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_when_one_is_told(tmp_path: Path) -> None:
    script = tmp_path / "pair.py"
    script.write_text(PAIR.format(tests=str(Path(__file__).parent), run=str(tmp_path / "run")))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, str(script)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert saved(tmp_path / "run") == [10]
