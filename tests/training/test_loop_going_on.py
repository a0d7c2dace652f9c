"""The loop goes on: from where it stood, from an older checkpoint, or from a copy of its averages."""

import csv
import logging
from pathlib import Path

import pytest
from torch import Tensor, nn
from toy import Toy, rows, same, saved, train

from lab import checkpoint
from lab.errors import LabError
from lab.training.optimizer import state_tensors


@pytest.mark.parametrize("intervals", [(1, 0, 3), (4, 0, 3), (4, 5, 3), (0, 0, 3)])
def test_a_run_that_goes_on_is_the_run_in_one_go(tmp_path: Path, intervals: tuple[int, int, int]) -> None:
    """Bit for bit, log included, wherever the intervals of log, preview and checkpoint fall."""
    often = dict(zip(("log_every", "preview_every", "save_every"), intervals, strict=True))
    whole = train(tmp_path / "whole", **often)

    class Killed(Toy):
        def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
            if step == 8:  # two steps after the last checkpoint
                raise KeyboardInterrupt
            return super().inputs(step, rank, world)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", Killed(), **often)
    assert saved(tmp_path / "broken") == [3, 6]
    again = train(tmp_path / "broken", **often)
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
    assert same(again.ema.parameters, whole.ema.parameters)  # type: ignore[arg-type]
    assert same(again.ema.averages, whole.ema.averages)
    assert same(*(state_tensors(one.optimizer, one.trainable) for one in (again, whole)))


def test_a_copy_of_the_averages_goes_on_with_a_new_optimizer_that_warms_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What `lab.export` leaves of a run: all weights are the averages, in half precision."""
    whole = train(tmp_path / "run")
    averages = {key: value.half() for key, value in whole.ema.averages.items()}
    found = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    for name in ("copy", "again"):
        checkpoint.save(tmp_path / name / "checkpoints", 10, {"weights": averages}, found.state)
    expected = Toy()
    expected.load_state_dict(averages)
    with caplog.at_level(logging.INFO, logger="lab"):
        copy = train(tmp_path / "copy", steps=15, lr_warmup=4)
    assert "at step 10, a copy: the optimiser is new" in caplog.text
    first, *further = rows(tmp_path / "copy")
    assert float(first["loss"]) == pytest.approx(expected(**expected.inputs(10))["loss"].mean().item())
    assert [float(row["lr"]) for row in (first, *further)] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    assert {int(state["step"]) for state in copy.optimizer.state.values()} == {5}
    train(tmp_path / "again", steps=12, lr_warmup=4)
    again = train(tmp_path / "again", steps=15, lr_warmup=4)  # now with its own state, and still warming up
    assert rows(tmp_path / "again") == [first, *further]
    assert same(again.ema.averages, copy.ema.averages)


def test_state_of_the_optimizer_lies_in_memory_as_the_weights_do(tmp_path: Path) -> None:
    """AdamW's fused kernel reads both by their place in memory: another layout trains wrongly, in silence."""
    train(tmp_path, steps=2)
    trainer = train(tmp_path, steps=3)
    for parameter, state in trainer.optimizer.state.items():
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == parameter.stride()
    weight = trainer.ema.parameters["conv.weight"]
    assert not weight.is_contiguous()  # else this shows nothing


def test_time_goes_on_too(tmp_path: Path) -> None:
    train(tmp_path, steps=5)
    with (tmp_path / "log.csv").open() as file:
        before = float(list(csv.DictReader(file))[-1]["seconds"])
    assert train(tmp_path, steps=6).seconds > before > 0


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(tmp_path / "whole", steps=12)
    train(tmp_path / "run", save_every=5)
    path = tmp_path / "run" / "checkpoints" / "step_00000010" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.INFO, logger="lab"):
        again = train(tmp_path / "run", steps=12)
    assert "optimizer.safetensors" in caplog.text
    assert "at step 5" in caplog.text
    assert same(again.ema.averages, whole.ema.averages)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_a_checkpoint_of_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    train(tmp_path)

    class Wider(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Conv2d(4, 3, 1, bias=False)

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(LabError, match="step_00000010: does not fit what is trained now") as error:
        train(tmp_path, Wider(), steps=12)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_is_done_stays_as_it_is(tmp_path: Path) -> None:
    train(tmp_path, save_every=5)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert train(tmp_path, save_every=5).step == 10
    assert train(tmp_path, steps=7).step == 10
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
