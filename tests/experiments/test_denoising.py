"""Both directions meet at the picture; and the command."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
import torch
from omegaconf import OmegaConf

from experiments import denoising
from experiments.denoising import both_ways, strip
from experiments.subjects import ask
from lab.model import DiffusionModel

Command = Callable[..., tuple[int, str]]
CFG = {"num_inference_steps": 12, "spacing": None, "guidance_scale": 1.0, "guidance_interval": None, "seed": 0}


def test_both_ways_meet_at_the_samples(model: DiffusionModel) -> None:
    subjects = ask(model, [0, 2], None)
    both = both_ways(model, subjects, OmegaConf.create(CFG))
    assert {name: tuple(rows.shape) for name, rows in both.pictures.items()} == dict.fromkeys(
        ("forward", "guessed", "reverse", "predicted"), (12, 2, 3, 8, 8)
    )
    samples = model.sample(
        condition=subjects.condition, guidance_scale=1.0, num_inference_steps=12, sampler="ddim", output="tensor"
    )
    assert isinstance(samples, torch.Tensor)
    torch.testing.assert_close(both.pictures["predicted"][-1], samples, atol=1e-4, rtol=0)
    assert both.on_the_way[-1] == pytest.approx(0, abs=1e-4) and both.on_the_way[0] > both.on_the_way[-1]
    apart = (both.pictures["forward"] - samples).square().mean(dim=(1, 2, 3, 4))
    assert apart[0] > apart[6] > apart[-1]  # less noise, nearer to the picture
    assert both.t == sorted(both.t, reverse=True)


def test_the_strip_has_as_many_stages_as_asked_for(model: DiffusionModel) -> None:
    subjects = ask(model, [0], None)
    both = both_ways(model, subjects, OmegaConf.create(CFG))
    narrow, wide = (strip(both, subjects, stages).width for stages in (3, 6))
    assert wide > narrow


def test_the_strip_reads_from_the_picture_to_noise_and_back(
    model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(denoising, "grid", lambda tiles, **layout: drawn.update(tiles=tiles, **layout))
    both = both_ways(model, ask(model, [0], None), OmegaConf.create(CFG))
    strip(both, ask(model, [0], None), 4)
    rows = dict(zip(denoising.ROWS, drawn["tiles"].unflatten(0, (4, 4)), strict=True))
    for name in ("forward", "reverse"):
        first, last = both.pictures[name][0, 0], both.pictures[name][-1, 0]
        ends = (last, first) if name == "forward" else (first, last)
        assert torch.equal(rows[name][0], ends[0]) and torch.equal(rows[name][-1], ends[1])
    labels = dict(zip(denoising.ROWS, drawn["row_labels"], strict=True))
    assert f"t={both.t[-1]}…{both.t[0]}" in labels["forward"] and f"t={both.t[0]}…{both.t[-1]}" in labels["reverse"]


def test_the_command_writes_video_strip_curves_table_and_page(
    class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    small: tuple[Any, ...] = ("num_inference_steps=4", "classes=[0,1]", "count=2")
    code, said = run_command(denoising.main, f"run={class_run}", f"out={tmp_path}", *small)
    assert code == 0, said
    names = {path.name for path in tmp_path.iterdir() if path.suffix != ".json"}
    assert names == {"curves.png", "denoising.csv", "denoising.mp4", "index.html", "strip.png"}
    assert imageio.imread(tmp_path / "denoising.mp4", index=None).shape[0] == 4
    with (tmp_path / "denoising.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["t"]) for row in rows] == sorted((int(row["t"]) for row in rows), reverse=True)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages=1", "stages=1: use at least 2"),
        ("num_inference_steps=0", "num_inference_steps=0"),
        ("count=0", "count=0"),
        ("fps=-1", "fps=-1"),
        ("run=null", "run=...: name a folder"),
    ],
)
def test_mistakes_are_one_line(class_run: Path, run_command: Command, override: str, words: str) -> None:
    code, said = run_command(denoising.main, f"run={class_run}", override)
    assert code == 2 and words in said, said
