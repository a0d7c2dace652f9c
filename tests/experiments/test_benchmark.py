import math

import pytest
import torch

from experiments import benchmark
from experiments.benchmark import Row, check, machine, make_network, markdown, race
from experiments.peers import peers
from lab.config import check_keys, compose
from lab.errors import LabError


def test_race_reports_the_median_of_the_ratios_of_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    # ours and theirs in turn: ratios 2, 10 and 3; the two uncounted calls go without the clock
    clock = iter([1.0, 2.0, 1.0, 10.0, 2.0, 6.0])
    monkeypatch.setattr(benchmark, "seconds", lambda step: next(clock))
    row = race("x", lambda: None, "y", lambda: None, units=8, rounds=3)
    assert row.ratio == 3.0
    assert (row.ours, row.theirs) == (8.0, 8 / 6)
    assert row.spread == "2.00 to 10.00"


def test_contenders_have_about_the_same_number_of_parameters() -> None:
    cfg = compose("benchmark", [])
    check_keys(cfg, "benchmark")
    with torch.device("meta"):
        counts = {which: sum(p.numel() for p in make_network(cfg, which).parameters()) for which in ("door", "pixels")}
        others = {name: sum(p.numel() for p in make().parameters()) for name, make in peers("door").items()}
    for count in (*counts.values(), *others.values()):
        assert 8e6 < count < 14e6, (counts, others)


def test_a_training_step_changes_the_weights() -> None:
    module = make_network(compose("benchmark", ["networks.door.channels=16", "networks.door.head_dim=16"]), "door")
    before = [p.detach().clone() for p in module.parameters()]
    step = benchmark.training_step(module, 2, 64, bf16=False, layout=torch.channels_last)
    step()
    moved = [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    assert any(moved)
    assert all(p.grad is None for p in module.parameters())


def test_the_table_holds_every_row() -> None:
    rows = [Row("a", 2.0, "b", 1.0, 2.0, "1.90 to 2.10"), Row("c", 3.0, "d", 6.0, 0.5, "0.40 to 0.60")]
    lines = markdown(rows).splitlines()
    assert lines[2] == "| a | 2.0 | b | 1.0 | 2.00 | 1.90 to 2.10 |"
    assert len(lines) == 4


def test_facts_name_the_precision_and_memory_is_a_number() -> None:
    assert machine(bf16=False)["precision"] == "fp32"
    assert math.isnan(benchmark.peak_memory()) or benchmark.peak_memory() > 0.05


@pytest.mark.parametrize("override", ["only=[door,nope]", "rounds=0", "batch_sizes=[0]"])
def test_bad_values_are_named(override: str) -> None:
    with pytest.raises(LabError, match=override.split("=")[0]):
        check(compose("benchmark", [override]))


def test_memory_is_that_of_the_whole_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr(benchmark.Unsaved, "save", lambda trainer: done.append(trainer.step))
    overrides = ["batch_sizes=[2,4]", "networks.door.channels=16", "networks.door.head_dim=16"]
    peak = benchmark.peak_of_training(compose("benchmark", overrides), bf16=False)
    assert done == [3]
    assert math.isnan(peak) or peak > 0.05
