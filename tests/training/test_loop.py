"""The loop, on a task of one convolution: what it computes, when it logs, looks and saves, and what stops it."""

import math
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from toy import Toy, rows, same, saved, settings, steps, train

from lab import checkpoint
from lab.errors import LabError, Stopped
from lab.training import Trainer, hardware
from lab.training.ema import EMA
from lab.training.hardware import check_same_step

# -- what a step computes ----------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_it_is_adamw_with_warm_up_clipping_and_averages(tmp_path: Path, clip: float) -> None:
    """Against the plainest loop that does the same."""
    trainer = train(tmp_path, grad_clip=clip, weight_decay=0.1, lr_decay=True)
    task, how = Toy(), settings(lr_decay=True)
    optimizer = torch.optim.AdamW(task.parameters(), betas=how.betas, weight_decay=0.1)
    ema = EMA(task, how.ema_decay)
    for step in range(10):
        optimizer.param_groups[0]["lr"] = how.lr_at(step)
        optimizer.zero_grad()
        loss = task(**task.inputs(step))["loss"].mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(task.parameters(), clip or math.inf)
        optimizer.step()
        ema.update(step)
        row = rows(tmp_path)[step]
        assert float(row["loss"]) == pytest.approx(loss.item(), rel=1e-5)
        assert float(row["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)  # before it is clipped
        assert float(row["lr"]) == how.lr_at(step)
        assert float(row["epoch"]) == (step + 1) / 4
    for name, parameter in task.named_parameters():
        torch.testing.assert_close(trainer.ema.parameters[name], parameter, rtol=0, atol=1e-5)
        torch.testing.assert_close(trainer.ema.averages[name], ema.averages[name], rtol=0, atol=1e-5)


def test_a_frozen_part_stays_and_is_saved(tmp_path: Path) -> None:
    task = Toy()
    task.conv.requires_grad_(False)
    before = task.conv.weight.clone()
    train(tmp_path, task, save_every=4)
    assert torch.equal(task.conv.weight, before)
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    assert torch.equal(found.tensors("weights")["conv.weight"], before)
    assert {key.split("/")[0] for key in found.tensors("optimizer")} == {"out.weight", "out.bias"}


# -- when it logs, looks and saves -------------------------------------------------------------------


def test_a_row_is_the_mean_of_the_steps_since_the_one_before(tmp_path: Path) -> None:
    train(tmp_path / "each")
    train(tmp_path / "some", log_every=4)
    each = [float(row["loss"]) for row in rows(tmp_path / "each")]
    assert steps(tmp_path / "some") == [4, 8, 10]
    for row, window in zip(rows(tmp_path / "some"), (each[:4], each[4:8], each[8:]), strict=True):
        assert float(row["loss"]) == pytest.approx(sum(window) / len(window), rel=1e-5)


def test_previews_see_the_averages_at_their_own_pace(tmp_path: Path) -> None:
    task = Toy()
    trainer = train(tmp_path, task, log_every=4, preview_every=3)
    assert [step for step, _ in task.seen] == [3, 6, 9, 10]
    assert steps(tmp_path) == [3, 4, 6, 8, 9, 10]
    assert [row["looked"] for row in rows(tmp_path)] == ["3.0", "", "6.0", "", "9.0", "10.0"]
    assert torch.equal(task.seen[-1][1], trainer.ema.averages["conv.weight"])
    assert not torch.equal(task.conv.weight, trainer.ema.averages["conv.weight"])


def test_looking_changes_nothing(tmp_path: Path) -> None:
    looked, blind = train(tmp_path / "a", preview_every=1), train(tmp_path / "b")
    assert same(looked.ema.parameters, blind.ema.parameters)  # type: ignore[arg-type]
    assert same(looked.ema.averages, blind.ema.averages)


class Rated(Toy):
    """Better at previews up to step 4, then ever worse, as what learns by heart is of pictures it has not seen."""

    rated_by = "distance"

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        return {"distance": abs(step - 4.0)}


def test_the_checkpoint_that_its_preview_rates_best_stays(tmp_path: Path) -> None:
    train(tmp_path, Rated(), save_every=1, preview_every=2, keep=1)
    assert saved(tmp_path) == [4, 10]
    assert checkpoint.best(tmp_path / "checkpoints").step == 4
    train(tmp_path, Rated(), save_every=1, preview_every=2, keep=1, steps=12)  # resumed, it is still there
    assert saved(tmp_path) == [4, 12]


def test_a_stop_during_its_preview_leaves_the_best_rated(tmp_path: Path) -> None:
    class Stopped4(Rated):
        def preview(self, folder: Path, step: int) -> dict[str, float]:
            if step == 4:
                signal.raise_signal(signal.SIGTERM)
            return super().preview(folder, step)

    with pytest.raises(Stopped):
        train(tmp_path, Stopped4(), save_every=1, preview_every=2, keep=1)
    assert checkpoint.best(tmp_path / "checkpoints").step == 4
    train(tmp_path, Rated(), save_every=1, preview_every=2, keep=1)
    assert saved(tmp_path) == [4, 10]


@pytest.mark.parametrize(("keep", "left"), [(1, [10]), (2, [9, 10]), (9, [3, 6, 9, 10])])
def test_it_saves_at_its_interval_and_the_end(tmp_path: Path, keep: int, left: list[int]) -> None:
    train(tmp_path, save_every=3, keep=keep)
    assert saved(tmp_path) == left


def test_what_is_off_still_ends_with_a_row_and_a_checkpoint(tmp_path: Path) -> None:
    task = Toy()
    train(tmp_path, task, log_every=0)
    assert steps(tmp_path) == saved(tmp_path) == [10]
    assert task.seen == []


# -- what stops it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize(("log_every", "bad"), [(1, 6), (4, 6), (0, 6), (20, 8)])
def test_numbers_that_are_not_finite_stop_it_before_they_are_saved(
    tmp_path: Path, where: str, log_every: int, bad: int
) -> None:
    """A gradient that is not finite spoils the weights as a loss does, one step before the loss shows it."""
    with pytest.raises(LabError, match=f"step {bad} is not finite") as error:
        train(tmp_path, Toy(bad, where), log_every=log_every, save_every=3)
    assert "\n" not in str(error.value)
    report = tmp_path / "not_finite.csv"
    assert str(report) in str(error.value)
    assert report.read_text() == f"step,index,file\n{bad},{bad},\n{bad},{100 + bad},7.jpg\n"
    assert saved(tmp_path) == [3, 6]
    for path in (tmp_path / "checkpoints").iterdir():
        tensors = checkpoint.load(path).tensors("raw") | checkpoint.load(path).tensors("weights")
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert all(math.isfinite(float(row["loss"])) for row in rows(tmp_path))


def test_the_batch_must_split_among_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = hardware.make_accelerator("fp32")
    monkeypatch.setattr(type(accelerator), "num_processes", 3)
    with pytest.raises(LabError, match=r"training\.batch_size=8: use a multiple of 3 "):
        Trainer(Toy(), tmp_path / "run", settings(), seed=0)
    assert not (tmp_path / "run").exists()


# -- precision ---------------------------------------------------------------------------------------


def test_trainings_of_one_process_each_have_their_own_precision(tmp_path: Path) -> None:
    """As a run does that trains its CLIP first."""
    first = train(tmp_path / "a", steps=2, precision="bf16")
    assert first.accelerator.mixed_precision == "bf16"
    second = train(tmp_path / "b", steps=2)
    assert second.accelerator.mixed_precision == "no"
    rough, fine = (float(rows(tmp_path / run)[0]["loss"]) for run in "ab")
    assert rough == pytest.approx(fine, rel=0.02)
    assert rough != fine


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_bf16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr("lab.device.hardware_has_bf16", lambda device: has)
    assert hardware.make_accelerator("auto").mixed_precision == ("bf16" if has else "no")
    assert hardware.make_accelerator("fp32").mixed_precision == "no"


# -- pieces of a batch -------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [2, 8])
def test_gradients_of_pieces_add_up_to_those_of_the_batch(tmp_path: Path, pieces: int) -> None:
    class Divided(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []

        def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
            return {"x": super().inputs(step)["x"]}

        def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            self.sizes.append(len(x))
            return {"loss": super().forward(x, torch.tensor(False))["loss"]}

    whole, parts = train(tmp_path / "1", Divided()), train(tmp_path / "n", task := Divided(), accumulation=pieces)
    assert task.sizes[-pieces:] == [8 // pieces] * pieces
    for a, b in zip(whole.task.parameters(), parts.task.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for key in ("loss", "grad_norm"):
        ours, theirs = ([float(row[key]) for row in rows(tmp_path / name)] for name in ("n", "1"))
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_batch_must_split_among_processes_and_pieces() -> None:
    four = SimpleNamespace(num_processes=4)
    trainer = cast(Trainer, SimpleNamespace(settings=settings(accumulation=4), accelerator=four, task=Toy()))
    with pytest.raises(LabError, match=r"training\.batch_size=8: use a multiple of 16"):
        Trainer._check_batch(trainer)


@pytest.mark.parametrize(("others", "agree"), [([8], True), ([0], False), ([4, 8], False)])
def test_processes_that_would_go_on_from_other_steps_are_stopped(others: list[int], agree: bool) -> None:
    """As on machines that do not share a folder, where one alone has checkpoints."""
    together = SimpleNamespace(
        num_processes=1 + len(others), device="cpu", gather=lambda mine: torch.cat([mine, torch.tensor(others)])
    )
    outcome = nullcontext() if agree else pytest.raises(LabError, match=r"here: the processes find steps .*8; let all")
    with outcome:
        check_same_step(cast(Accelerator, together), 8, Path("here"))


def test_a_task_that_needs_its_batches_whole_refuses_pieces(tmp_path: Path) -> None:
    task = Toy()
    task.divisible = False
    with pytest.raises(LabError, match=r"training\.accumulation=2: task needs"):
        train(tmp_path, task, accumulation=2)


# -- trackers ----------------------------------------------------------------------------------------


def test_tensorboard_gets_the_numbers_of_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "run", trackers=["tensorboard"])
    told = EventAccumulator(str(tmp_path / "run" / "trackers" / "run")).Reload()
    events = told.Scalars("loss")
    assert [event.step for event in events] == list(range(1, 11))
    assert [event.value for event in events] == pytest.approx([float(row["loss"]) for row in rows(tmp_path / "run")])
