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


def test_in_latents_nothing_is_clipped_to_be_measured(latent_run: Path, run_command: Command, tmp_path: Path) -> None:
    asked = (f"run={latent_run}", f"out={tmp_path / 'out'}", "measures=[clip_fraction]", *SMALL["cfg_sweep"])
    code, said = run_command(import_module("experiments.cfg_sweep").main, *asked)
    assert code == 2 and "measures=[clip_fraction]: nothing of it can be measured here" in said, said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("sampler_comparison", ("samplers=[ddim]", "steps=[2]", "reference.num_inference_steps=4")),
        ("inversion_error", ("steps=[2]", "iterations=[1]")),
    ],
)
def test_prompts_are_served(
    clip_run: Path, run_command: Command, tmp_path: Path, name: str, small: tuple[str, ...]
) -> None:
    asked = (f"run={clip_run}", f"out={tmp_path}", "prompts=[a red flower, a blue flower]")
    code, said = run_command(import_module(f"experiments.{name}").main, *asked, *small)
    assert code == 0, said
    facts = read_provenance(tmp_path / "grid.png")
    assert facts.get("images", facts)["subjects"] == ["a red flower", "a blue flower"]


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


def test_interpolation_goes_from_noise_to_noise(unconditional: Path, run_command: Command, tmp_path: Path) -> None:
    asked = (f"run={unconditional}", f"out={tmp_path}", "num_inference_steps=2", "points=2", "count=1", "video=gif")
    code, said = run_command(import_module("experiments.interpolation").main, *asked)
    assert code == 0, said
    page = (tmp_path / "index.html").read_text()
    assert "From one noise to another" in page and "One way changes what is asked for" not in page


def test_denoising_needs_none(unconditional: Path, run_command: Command, tmp_path: Path) -> None:
    asked = (f"run={unconditional}", f"out={tmp_path}", "num_inference_steps=2", "video=gif")
    code, said = run_command(import_module("experiments.denoising").main, *asked)
    assert code == 0, said
    assert (tmp_path / "denoising.gif").is_file() and (tmp_path / "strip.png").is_file()
