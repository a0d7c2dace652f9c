"""The samples that are evaluated: of the classes named, the same whatever the batch and however many processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lab
from lab.conditioning import ClipVector
from lab.evaluation.drawing import conditions_of, draw, estimate
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import from_uint8

ROOT = Path(__file__).resolve().parents[2]
ASKED = {"num_inference_steps": 3, "sampler": "ddim", "guidance_scale": 2.0, "seed": 4}
KEPT = 1 / 255 + 1e-3  # pictures are kept in bytes


def test_classes_are_those_named_with_numbers_in_order(model: DiffusionModel, tmp_path: Path) -> None:
    asked = torch.tensor([0, 2, 2, 0, 1, 1, 0])
    pixels, labels = draw(model, asked, {**ASKED, "batch_size": 3}, Parts(tmp_path, {}))
    assert torch.equal(labels, asked) and pixels.dtype == torch.uint8
    classes, numbers = ["rose", "tulip", "tulip", "rose", "daisy", "daisy", "rose"], list(range(7))
    plain = model.sample(classes=classes, numbers=numbers, output="tensor", **ASKED)  # type: ignore[arg-type]
    assert isinstance(plain, torch.Tensor)
    assert float((from_uint8(pixels) - plain).abs().max()) <= KEPT
    assert len({row.numpy().tobytes() for row in pixels}) == 7


def test_what_is_drawn_later_goes_on_from_a_number(model: DiffusionModel, tmp_path: Path) -> None:
    classes = torch.tensor([0, 2, 1, 1, 0])
    whole, _ = draw(model, classes, ASKED, Parts(tmp_path / "whole", {}))
    rest, labels = draw(model, classes[3:], ASKED, Parts(tmp_path / "rest", {}), first=3)
    assert torch.equal(labels, classes[3:])
    assert int((rest.int() - whole[3:].int()).abs().max()) <= 1
    assert not torch.equal(rest, whole[:2])


def test_what_is_there_is_not_made_again(
    model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, asked = torch.arange(5) % 3, {**ASKED, "batch_size": 2}
    sample, calls = type(model).sample, 0

    def cut_short(*given: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return sample(*given, **settings)

    monkeypatch.setattr(type(model), "sample", cut_short)
    with pytest.raises(KeyboardInterrupt):
        draw(model, classes, asked, Parts(tmp_path, {}))
    first, _ = draw(model, classes, asked, Parts(tmp_path, {}))
    assert calls == 4  # the two batches that were there are not made again
    monkeypatch.setattr(type(model), "sample", lambda *_, **__: pytest.fail("computed again"))
    assert torch.equal(draw(model, classes, asked, Parts(tmp_path, {}))[0], first)
    assert estimate(model, classes, asked, Parts(tmp_path, {})) == 0


def test_the_estimate_counts_what_is_missing(
    model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    now = [0.0]

    def slow(*_: Any, **settings: Any) -> None:  # a second an evaluation, and one for the rest
        asked.append(settings)
        now[0] += settings["num_inference_steps"] + 1

    monkeypatch.setattr(type(model), "sample", slow)
    monkeypatch.setattr("lab.evaluation.drawing.time.perf_counter", lambda: now[0])
    parts = Parts(tmp_path, {})
    knobs = {**ASKED, "num_inference_steps": 20, "batch_size": 2}
    assert estimate(model, torch.zeros(7, dtype=torch.long), knobs, parts) == pytest.approx(21 * 7 / 2)
    parts.get("samples_000000_000001", lambda: {"pixels": torch.zeros(1)})
    assert estimate(model, torch.zeros(7, dtype=torch.long), knobs, parts) == pytest.approx(21 * 5 / 2)
    others = Parts(tmp_path / "others", {})
    more = estimate(model, torch.zeros(7, dtype=torch.long), knobs, parts, [(4, others), (0, others)])
    assert more == pytest.approx(21 * 9 / 2)
    assert all(one["guidance_scale"] == 2.0 for one in asked)


def test_conditions_without_classes_cannot_be_asked_for_evenly(tiny_model: Callable[..., DiffusionModel]) -> None:
    model = tiny_model(conditioner=ClipVector(dim=6))
    with pytest.raises(lab.LabError, match="its data had no classes"):
        conditions_of(model, torch.zeros(4, dtype=torch.long))


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
pixels, _ = draw(model, torch.arange(9) % 3, {{**{asked!r}, "batch_size": 2}}, Parts(Path({out!r}), {{}}))
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
    alone, _ = draw(
        lab.load(class_run, "cpu"), torch.arange(9) % 3, {**ASKED, "batch_size": 2}, Parts(tmp_path / "alone", {})
    )
    assert int((alone.int() - found[0][1].int()).abs().max()) <= 1
