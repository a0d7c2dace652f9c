"""The comparison's arithmetic, on runs that are told; and the command, on a run that was trained for a moment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from experiments import sampler_comparison
from experiments.common import spread, to_csv
from experiments.sampler_comparison import Row, compare, conclusion, plot
from lab.model import DiffusionModel
from lab.render import read_provenance

Command = Callable[..., tuple[int, str]]


def rows(distances: dict[str, list[float]]) -> list[Row]:
    return [Row(name, 10 * 2**i, d, 0.1) for name, values in distances.items() for i, d in enumerate(values)]


def test_the_conclusion_names_who_is_close_first() -> None:
    told = conclusion(rows({"ddim": [0.5, 0.2, 0.04], "unipc": [0.03, 0.001, 0.0001], "lms": [0.9, 0.8, 0.7]}))
    assert told.endswith("hard to see: unipc after 10, ddim after 40 evaluations.")
    assert conclusion(rows({"ddim": [0.5]})) == "No sampler came within 0.05 of the reference."


def test_the_table_and_the_plot_hold_every_row() -> None:
    some = rows({"ddim": [0.5, 0.2], "heun": [0.3, 0.1]})
    assert to_csv(some).splitlines()[1:] == ["ddim,10,0.5,0.1", "ddim,20,0.2,0.1", "heun,10,0.3,0.1", "heun,20,0.1,0.1"]
    assert plot(some).size[0] > 400


def test_distances_fall_with_steps_and_vanish_at_the_reference(model: DiffusionModel) -> None:
    cfg = OmegaConf.create(
        {
            "samplers": ["ddim", "dpmpp_2m"],
            "steps": [3, 50, 100],
            "reference": {"sampler": "dpmpp_2m", "num_inference_steps": 100},
        }
    )
    asked: dict[str, Any] = {"classes": [0, 1], "guidance_scale": 1.0}
    measured, pictures = compare(model, cfg, asked)
    by_name = {name: [row.distance for row in measured if row.sampler == name] for name in cfg.samplers}
    assert by_name["ddim"][0] > by_name["ddim"][1]
    assert by_name["dpmpp_2m"][2] == 0
    assert len(pictures) == 7 and torch.equal(pictures[5], pictures[6])


def test_classes_are_spread_over_the_runs(model: DiffusionModel) -> None:
    assert spread(model, 2) == [0, 2]
    assert spread(model) == [0, 1, 2]


def test_the_command_writes_table_plot_grid_and_page(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    small = ("samplers=[ddim,heun]", "steps=[2,4]", "reference.num_inference_steps=8", "classes=[0,1]")
    code, said = run_command(sampler_comparison.main, f"run={class_run}", f"out={tmp_path / 'out'}", *small)
    assert code == 0, said
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".json") == [
        "distances.csv",
        "distances.png",
        "grid.png",
        "index.html",
    ]
    lines = (tmp_path / "out" / "distances.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["ddim", "2"], ["ddim", "4"], ["heun", "2"], ["heun", "4"]]
    told = read_provenance(tmp_path / "out" / "grid.png")
    assert told["reference"] == {"sampler": "dpmpp_2m", "num_inference_steps": 8} and len(told["subjects"]) == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("run=null", "run=...: name a folder"),
        ("samplers=[ddpm]", "samplers=ddpm: use some of ddim"),
        ("steps=[0]", "steps at least 1"),
        ("spacin=karras", "did you mean spacing?"),
    ],
)
def test_mistakes_are_one_line(class_run: Path, run_command: Command, override: str, words: str) -> None:
    code, said = run_command(sampler_comparison.main, f"run={class_run}", override)
    assert code == 2 and words in said
