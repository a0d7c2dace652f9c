"""A run that is killed and goes on, or is shared by two processes, is the run that one process makes in one go."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lab import checkpoint
from lab.config import build, compose
from lab.data import BatchStream, Petals
from lab.errors import LabError
from lab.runs import build_model
from lab.training import DiffusionTask, Trainer, TrainingSettings

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "conditioning=unconditional",
    "data=petals",
    "data.image_size=16",
    "model=unet_small",
    "model.patch_size=2",
    "model.channels=8",
    "model.head_dim=8",
    "model.embedding_dim=16",
    "model.multipliers=[1,2]",
    "model.linear_attention=[8]",
    "model.full_attention=[4]",
]


def make_task(cache: Path, **model: float) -> DiffusionTask:
    """A tiny diffusion task on 40 petals, the same each time."""
    cfg = compose("train", [*SMALL, *(f"model.{key}={value}" for key, value in model.items())])
    torch.manual_seed(0)
    images = Petals(16, size=40, held_out_size=40, cache_dir=str(cache)).load("train")
    return DiffusionTask(build_model(cfg), BatchStream(images, 8, seed=3), seed=3)


def settings(**changes: float) -> TrainingSettings:
    """Every step logged, a checkpoint every five."""
    values = {"steps": 24, "batch_size": 8, "log_every": 1, "preview_every": 0, "save_every": 5} | changes
    made: TrainingSettings = build({"_target_": "lab.training.TrainingSettings", **values})  # type: ignore[arg-type]
    return made


def trace(run: Path) -> list[tuple[str, str, str]]:
    """(step, loss, grad_norm) of each row of the log, as written."""
    with (run / "log.csv").open() as file:
        return [(row["step"], row["loss"], row["grad_norm"]) for row in csv.DictReader(file)]


def everything(run: Path) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint."""
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    return {f"{n}/{k}": v for n in ("weights", "raw", "optimizer") for k, v in found.tensors(n).items()}


CHILD = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from test_continuing import *
torch.set_num_threads(1)
Trainer(make_task(Path({cache!r})), Path({run!r}), settings(), seed=3).run()
"""


@pytest.mark.slow
def test_killed_at_step_13_and_resumed_is_bit_for_bit_the_run_in_one_go(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    Trainer(make_task(tmp_path), whole, settings(), seed=3).run()

    code = CHILD.format(tests=str(Path(__file__).parent), cache=str(tmp_path), run=str(broken))
    # the child is stopped as soon as it has logged step 13, three steps after its last checkpoint, and then killed
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    log = broken / "log.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") > 13):
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it ended before it could be killed"
    found = checkpoint.latest(broken / "checkpoints")
    assert found is not None
    assert 10 <= found.step < 24

    trainer = Trainer(make_task(tmp_path), broken, settings(), seed=3)
    trainer.run()
    torch.set_num_threads(threads)
    assert trace(broken) == trace(whole)
    assert len(trace(whole)) == 24
    first, second = everything(whole), everything(broken)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(
        not torch.equal(first[k], first[k.replace("weights/", "raw/")]) for k in first if k.startswith("weights/")
    )


PAIR = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from test_continuing import *
torch.set_num_threads(1)
trainer = Trainer(make_task(Path({cache!r}), dropout=0.0), Path({run!r}), settings(steps=8, save_every=0), seed=3)
assert trainer.accelerator.num_processes == 2
trainer.run()
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    Trainer(make_task(tmp_path, dropout=0.0), one, settings(steps=8, save_every=0), seed=3).run()
    script = tmp_path / "pair.py"
    script.write_text(PAIR.format(tests=str(Path(__file__).parent), cache=str(tmp_path), run=str(two)))
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, str(script)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = ([float(loss) for _, loss, _ in trace(run)] for run in (one, two))
    assert len(ours) == 8
    assert theirs == pytest.approx(ours, rel=2e-4)
    a, b = everything(one), everything(two)
    apart = max(float((a[key] - b[key]).abs().max()) for key in a if key.startswith("raw/"))
    moved = 8 * settings().lr_at(7)
    assert apart < 0.1 * moved


class Poisoned(DiffusionTask):
    """Loses its mind at step 7."""

    def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        given = super().inputs(step, rank, world)
        if step == 7:
            given["images"] = given["images"] * float("nan")
        return given


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(tmp_path: Path) -> None:
    healthy = make_task(tmp_path)
    task = Poisoned(healthy.model, healthy.stream, seed=3)
    with pytest.raises(LabError, match="step 7 is not finite"):
        Trainer(task, tmp_path / "run", settings(log_every=20), seed=3).run()
    with (tmp_path / "run" / "not_finite.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == healthy.stream.indices(7).tolist()
    assert {row["step"] for row in rows} == {"7"}
    found = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.step == 5
    assert all(tensor.isfinite().all() for tensor in found.tensors("raw").values())
