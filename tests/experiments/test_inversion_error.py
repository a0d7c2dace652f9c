"""The way there and back through a run, and the command."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from experiments import inversion_error
from lab.model import DiffusionModel

Command = Callable[..., tuple[int, str]]


def test_the_command_writes_table_plot_grid_and_page(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    small = ("steps=[2,4]", "iterations=[1,3]", "classes=[0,1]")
    code, said = run_command(inversion_error.main, f"run={class_run}", f"out={tmp_path / 'out'}", *small)
    assert code == 0, said
    names = sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".json")
    assert names == ["errors.csv", "errors.png", "grid.png", "index.html"]
    header, *lines = (tmp_path / "out" / "errors.csv").read_text().splitlines()
    assert header == "iterations,steps,error,psnr"
    assert [line.split(",")[:2] for line in lines] == [["1", "2"], ["1", "4"], ["3", "2"], ["3", "4"]]
    assert all(float(line.split(",")[2]) > 0 for line in lines)


def test_iterating_brings_the_picture_nearer(model: DiffusionModel) -> None:
    """Of a smooth network the fixed point is found, and four times as many levels bring it nearer as well."""
    condition = model.condition(classes=[0, 1])
    images = model.sample(condition=condition, num_inference_steps=50, sampler="dpmpp_2m", output="tensor")
    assert isinstance(images, torch.Tensor)
    cfg = OmegaConf.create({"steps": [10, 40], "iterations": [1, 3], "spacing": None})
    rows, back = inversion_error.measure(model, images, condition, cfg)
    error = {(row.iterations, row.steps): row.error for row in rows}
    assert error[3, 10] < error[1, 10] and error[1, 40] < error[1, 10] and error[3, 40] < 0.5 * error[1, 10]
    spread = float((images[0] - images[1]).square().mean().sqrt())
    assert error[3, 40] < 0.5 * spread, (error, spread)
    assert len(back) == 4 and back[0].shape == images[:1].shape


@pytest.mark.parametrize(
    ("override", "words"),
    [("run=null", "run=...: name a folder"), ("steps=[0]", "steps=[0]: name some"), ("iterations=[]", "iterations=[]")],
)
def test_mistakes_are_one_line(class_run: Path, run_command: Command, override: str, words: str) -> None:
    code, said = run_command(inversion_error.main, f"run={class_run}", override)
    assert code == 2 and words in said
