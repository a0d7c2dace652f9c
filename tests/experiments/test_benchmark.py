"""The contenders, and what is measured of the lab's own."""

import math

import pytest
import torch

from experiments import benchmark
from experiments.benchmark import check, make_network
from experiments.peers import peers
from experiments.sweep_speed import check_same, sweep_rows
from lab.config import check_keys, compose
from lab.errors import LabError


def test_contenders_have_about_the_same_number_of_parameters() -> None:
    cfg = compose("benchmark", [])
    check_keys(cfg, "benchmark")
    with torch.device("meta"):
        counts = {
            which: sum(p.numel() for p in make_network(cfg, which).parameters())
            for which in ("door", "pixels", "latent")
        }
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


@pytest.mark.parametrize(
    "override", ["only=[door,nope]", "only=door", "rounds=0", "rounds=many", "batch_sizes=[0]", "batch_sizes=[]"]
)
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


@pytest.mark.slow
def test_both_ways_of_sweeping_make_the_same_pictures() -> None:
    small = ["rounds=1", "networks.door.channels=16", "networks.door.head_dim=16", "networks.door.blocks=1"]
    rows = sweep_rows(compose("benchmark", [*small, "data.image_size=32"]), bf16=False)  # LabError where they differ
    assert [row.other for row in rows] == ["a loop over the scales", "a loop over the steps"]


def test_pictures_that_differ_are_refused() -> None:
    one = torch.zeros(2, 3, 4, 4)
    check_same({"ours": one, "theirs": one + 5e-5}, 1e-4)
    with pytest.raises(LabError, match=r"differ by 0\.01"):
        check_same({"ours": one, "theirs": one + 0.01}, 1 / 255)
