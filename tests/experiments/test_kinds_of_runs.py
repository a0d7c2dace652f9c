"""Every experiment serves every kind of run, or says in one line why it cannot."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from lab.render import read_provenance

Command = Callable[..., tuple[int, str]]
SMALL = {
    "denoising": ("num_inference_steps=2", "classes=[0]"),
    "class_grid": ("num_inference_steps=2", "classes=[0,1]"),
    "cfg_sweep": ("num_inference_steps=2", "classes=[0]", "values=[0,2]", "count=1"),
    "phi_sweep": ("num_inference_steps=2", "classes=[0]", "values=[0,2]", "count=1"),
    "style_transfer": ("num_inference_steps=2", "classes=[0,1]", "points=2", "fixed_point_iterations=1"),
    "interpolation": ("num_inference_steps=2", "classes=[0,1]", "points=2", "count=1"),
}


@pytest.mark.parametrize("name", SMALL)
def test_runs_in_latents_are_served(latent_run: Path, run_command: Command, tmp_path: Path, name: str) -> None:
    main = import_module(f"experiments.{name}").main
    code, said = run_command(main, f"run={latent_run}", f"out={tmp_path}", "video=gif", "precision=bf16", *SMALL[name])
    assert code == 0, said
    assert read_provenance(tmp_path / f"{name}.gif")["precision"] == "bf16"
    assert {"index.html", f"{name}.gif"} <= {path.name for path in tmp_path.iterdir()}


@pytest.fixture(scope="module")
def unconditional(
    tmp_path_factory: pytest.TempPathFactory, tiny_settings: tuple[str, ...], run_command: Command
) -> Path:
    """An unconditional run of two steps."""
    import lab.train

    folder = tmp_path_factory.mktemp("runs") / "unconditional"
    asked = ("+experiment=class_cond", "conditioning=unconditional", "training.steps=2", f"hydra.run.dir={folder}")
    code, said = run_command(lab.train.main, *tiny_settings, *asked)
    assert code == 0, said
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cfg_sweep", "there is nothing to guide"),
        ("phi_sweep", "there is nothing to guide"),
        ("style_transfer", "there is nothing to guide"),
        ("class_grid", "it knows no classes"),
        ("text_grid", "it takes no prompts"),
    ],
)
def test_what_needs_a_condition_says_so(unconditional: Path, run_command: Command, name: str, words: str) -> None:
    code, said = run_command(import_module(f"experiments.{name}").main, f"run={unconditional}")
    assert code == 2 and words in said, said
    assert not (unconditional / name).exists()


def test_denoising_needs_none(unconditional: Path, run_command: Command, tmp_path: Path) -> None:
    asked = (f"run={unconditional}", f"out={tmp_path}", "num_inference_steps=2", "video=gif")
    code, said = run_command(import_module("experiments.denoising").main, *asked)
    assert code == 0, said
    assert (tmp_path / "denoising.gif").is_file() and (tmp_path / "strip.png").is_file()
