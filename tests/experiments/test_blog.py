"""One page of many figures, each with its command and what it cost."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experiments import blog
from experiments.blog import FIGURES, counted, module_of, settings_of
from lab import LabError
from lab.config import compose
from lab.model import DiffusionModel

Command = Callable[..., tuple[int, str]]


def test_every_figure_is_an_experiment_with_settings_in_both_presets() -> None:
    for preset in ("article", "fast"):
        cfg = compose("blog", [f"preset={preset}", "clip_run=a", "class_run=b"])
        assert set(cfg.preset) == set(FIGURES)
        for name, kind in FIGURES.items():
            settings = settings_of(cfg, name)
            assert settings.out == f"results/blog/{name}"
            assert settings.get("run") == {"clip": "a", "class": "b", None: settings.get("run")}[kind]
            assert callable(module_of(name).run) and callable(module_of(name).check)


def test_classes_are_drawn_by_the_clip_run_where_there_is_no_other() -> None:
    assert settings_of(compose("blog", ["clip_run=a", "class_run=null"]), "cfg_sweep").run == "a"
    with pytest.raises(LabError, match="class_run: name the run that cfg_sweep"):
        settings_of(compose("blog", ["clip_run=null", "class_run=null"]), "cfg_sweep")


def test_a_key_that_an_experiment_has_not_is_named() -> None:
    with pytest.raises(LabError, match=r"preset\.cfg_sweep\.pionts: experiments\.cfg_sweep has no such key"):
        settings_of(compose("blog", ["+preset.cfg_sweep.pionts=3"]), "cfg_sweep")


def test_evaluations_are_pictures_the_network_was_asked_about(model: DiffusionModel) -> None:
    with counted() as calls:
        model.sample(classes=[0, 1, 2], num_inference_steps=4, guidance_scale=2.0)
        model.sample(classes=[0], num_inference_steps=4, guidance_scale=1.0)
    assert sum(calls) == 4 * 2 * 3 + 4
    model.network(torch.zeros(1, 3, 8, 8), torch.zeros(1), model.condition(classes=[0]))
    assert len(calls) == 8


def test_the_command_writes_one_page_and_one_a_figure(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    small = ("preset.denoising.num_inference_steps=3", "preset.cfg_sweep.points=3", "preset.cfg_sweep.count=1",
             "preset.cfg_sweep.num_inference_steps=2")  # fmt: skip
    asked = (
        f"clip_run={class_run}",
        "class_run=null",
        "compact=true",
        "only=[cfg_sweep,denoising]",
        "preset=fast",
        f"out={tmp_path / 'out'}",
        *small,
    )
    code, said = run_command(blog.main, *asked)
    assert code == 0, said
    html = (tmp_path / "out" / "index.html").read_text()
    assert html.index("What happens on the way?") < html.index("What does guidance do?") < html.index("What it cost")
    assert f"python -m experiments.cfg_sweep run={class_run}" in html
    assert "48 evaluations of the network" in html  # 3 scales x 4 classes x 2 evaluations x 2 branches
    assert (tmp_path / "out" / "cfg_sweep" / "index.html").is_file()
    kept = (tmp_path / "out" / "cfg_sweep" / "cfg_sweep.mp4").read_bytes()
    assert base64.b64encode(kept).decode() in html  # the smaller one


def test_a_figure_that_cannot_be_made_is_left_out(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    small = (
        "preset.denoising.num_inference_steps=2",
        "preset=fast",
        f"out={tmp_path / 'out'}",
        f"clip_run={class_run}",
        "class_run=null",
    )
    code, said = run_command(blog.main, "only=[text_grid,denoising]", *small)
    assert code == 0, said
    assert "text_grid is left out: run=" in said
    html = (tmp_path / "out" / "index.html").read_text()
    assert "What happens on the way?" in html and "Does it draw what words say?" not in html
    code, said = run_command(blog.main, "only=[text_grid]", *small)
    assert code == 2 and "no figure could be made" in said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("only=[cgf_sweep]", "only=cgf_sweep: use some of denoising"),
        ("only=cfg_sweep", "only=cfg_sweep: must be"),
        ("clip_run=nowhere", "run=nowhere: no config.yaml there"),
        ("preset=quick", "preset=quick: no such option"),
        ("video=avi", "video=avi: use mp4 or gif"),
        ("compact=85", "compact=85: must be bool"),
        ("+preset.cfg_sweep.values=[]", "values=[]: name at least one"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    class_run: Path, run_command: Command, tmp_path: Path, override: str, words: str
) -> None:
    code, said = run_command(blog.main, f"clip_run={class_run}", "class_run=null", f"out={tmp_path / 'out'}", override)
    assert code == 2 and words in said, said
    assert not (tmp_path / "out").exists()
