"""The samples that are evaluated: classes in turn, the same whatever the batch and however many processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lab
from lab.conditioning import ClipVector
from lab.evaluation.drawing import classes_in_turn, draw
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import from_uint8

ROOT = Path(__file__).resolve().parents[2]
ASKED = {"num_inference_steps": 3, "sampler": "ddim", "guidance_scale": 2.0, "seed": 4}
KEPT = 1 / 255 + 1e-3  # pictures are kept in bytes


def test_classes_come_in_turn_with_numbers_in_order(model: DiffusionModel, tmp_path: Path) -> None:
    pixels, labels = draw(model, 7, {**ASKED, "batch_size": 3}, Parts(tmp_path, {}))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0] and pixels.dtype == torch.uint8
    classes, numbers = ["rose", "daisy", "tulip", "rose", "daisy", "tulip", "rose"], list(range(7))
    plain = model.sample(classes=classes, numbers=numbers, output="tensor", **ASKED)  # type: ignore[arg-type]
    assert isinstance(plain, torch.Tensor)
    assert float((from_uint8(pixels) - plain).abs().max()) <= KEPT
    assert len({row.numpy().tobytes() for row in pixels}) == 7


def test_what_is_there_is_not_made_again(
    model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = draw(model, 5, {**ASKED, "batch_size": 2}, Parts(tmp_path, {}))
    monkeypatch.setattr(type(model), "sample", lambda *_, **__: pytest.fail("computed again"))
    assert torch.equal(draw(model, 5, {**ASKED, "batch_size": 2}, Parts(tmp_path, {}))[0], first)


def test_conditions_without_classes_cannot_be_asked_for_evenly(tiny_model: Callable[..., DiffusionModel]) -> None:
    model = tiny_model(conditioner=ClipVector(dim=6))
    with pytest.raises(lab.LabError, match="its data had no classes"):
        classes_in_turn(model, 4)


PAIR = """
import sys
from pathlib import Path
import torch, lab
from accelerate import PartialState
from lab.evaluation.drawing import draw
from lab.parts import Parts
torch.set_num_threads(1)
model, calls = lab.load({run!r}, "cpu"), []
sample = type(model).sample
def counted(self, *given, **asked):
    calls.append(1)
    return sample(self, *given, **asked)
type(model).sample = counted
pixels, _ = draw(model, 9, {{**{asked!r}, "batch_size": 2}}, Parts(Path({out!r}), {{}}))
rank = PartialState().process_index
torch.save((len(calls), pixels), Path({out!r}) / f"rank{{rank}}.pt")
"""


@pytest.mark.slow
def test_processes_share_the_samples_and_all_have_them(class_run: Path, tmp_path: Path) -> None:
    """Five batches: three are one process's work, two the other's."""
    script = tmp_path / "pair.py"
    script.write_text(PAIR.format(run=str(class_run), out=str(tmp_path / "shared"), asked=ASKED))
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(tmp_path / "shared" / f"rank{rank}.pt") for rank in (0, 1)]
    assert [calls for calls, _ in found] == [3, 2]
    assert torch.equal(found[0][1], found[1][1])
    alone, _ = draw(lab.load(class_run, "cpu"), 9, {**ASKED, "batch_size": 2}, Parts(tmp_path / "alone", {}))
    assert int((alone.int() - found[0][1].int()).abs().max()) <= 1
