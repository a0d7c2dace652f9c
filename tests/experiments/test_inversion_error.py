"""The way there and back through a run, and the command."""

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import inversion_error

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


@pytest.mark.parametrize(
    ("override", "words"),
    [("run=null", "run=...: name a folder"), ("steps=[0]", "steps=[0]: name some"), ("iterations=[]", "iterations=[]")],
)
def test_mistakes_are_one_line(class_run: Path, run_command: Command, override: str, words: str) -> None:
    code, said = run_command(inversion_error.main, f"run={class_run}", override)
    assert code == 2 and words in said
