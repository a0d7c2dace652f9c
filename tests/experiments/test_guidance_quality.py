"""Guidance evaluated scale by scale: what is drawn, and the command on a run that was trained for a moment."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments import guidance_quality
from experiments.guidance_quality import lines_of, plot
from lab.model import DiffusionModel

Command = Callable[..., tuple[int, str]]


def row(run: str, guidance: float | None, **measures: float | None) -> dict[str, Any]:
    return {"run": run, "guidance": guidance, **measures}


def test_a_measure_that_nobody_took_has_no_panel() -> None:
    some = [row("a", 1, fid=8.0), row("a", 2, fid=9.0), row("real pictures, n = 9", None, fid=1.4, cas_top1=0.1)]
    more = [row("a", 1, fid=8.0, top1=0.5, recall=0.5, precision=0.5), *some[1:]]
    assert plot(more).height == 2 * plot(some).height  # of three in a row


def test_a_line_is_of_one_run_sampled_in_one_way() -> None:
    """Or evaluations of several seeds would make it go to and fro."""
    real = row("real pictures, n = 9", None, fid=1.4)
    plain = [row("x/a", 1, fid=8.0), row("x/a", 2, fid=9.0), row("x/b", 1, fid=7.0), real]
    assert {label: [one["guidance"] for one in line] for label, line in lines_of(plain).items()} == {
        "a": [1, 2],
        "b": [1],
    }
    seeds = [{**one, "seed": seed, "sampler": "ddim"} for seed in (0, 1) for one in plain]
    assert list(lines_of(seeds)) == ["a, seed 0", "b, seed 0", "a, seed 1", "b, seed 1"]
    assert all(len(line) == (2 if label.startswith("a") else 1) for label, line in lines_of(seeds).items())
    assert list(lines_of([row("x/a", 1), row("y/a", 1)])) == ["x/a", "y/a"]


def test_each_run_is_evaluated_at_each_scale(
    copied: Path, judge_run: Path, run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (f"judge={judge_run}", "n=24", "num_inference_steps=2", "batch_size=10", f"out={tmp_path / 'out'}")
    code, said = run_command(guidance_quality.main, f"runs=[{copied}]", "scales=[1,3]", *small)
    assert code == 0, said
    lines = (tmp_path / "out" / "guidance_quality.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[:3]] == ["guidance", "1.0", "3.0"]
    assert lines[3].startswith('"real pictures, n = 24"') and lines[4].startswith('"held out, n = 40"')
    found = json.loads((copied / "evaluation" / "3_n-24_num_inference_steps-2" / "evaluation.json").read_text())
    assert lines[2].split(",")[2] == str(found["generated"]["fid"])
    monkeypatch.setattr(DiffusionModel, "sample", lambda *_, **__: pytest.fail("sampled again"))
    code, said = run_command(guidance_quality.main, f"runs=[{copied}]", "scales=[]", *small)
    assert code == 0, said  # what is there is shown
    assert (tmp_path / "out" / "guidance_quality.csv").read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("runs=null", "runs=[...]: name folders"),
        ("scales=[nan]", "scales=[nan]: use numbers"),
        ("space=beauty", "space=beauty: use judge"),
        ("scale=[1]", "did you mean scales?"),
    ],
)
def test_mistakes_are_one_line(class_run: Path, run_command: Command, override: str, words: str) -> None:
    code, said = run_command(guidance_quality.main, f"runs=[{class_run}]", override)
    assert code == 2 and words in said, said
