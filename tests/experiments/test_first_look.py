"""The kept models, sampled at once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import pytest

from experiments import first_look
from lab import runs
from lab.render import read_provenance

Command = Callable[..., tuple[int, str]]
SMALL = ("count=2", "num_inference_steps=2")


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "reference"
    folder.mkdir()
    monkeypatch.setattr(runs, "REFERENCE", folder)
    return folder


def test_every_kept_model_has_its_sheet(
    reference: Path, class_run: Path, clip_run: Path, judge_run: Path, run_command: Command, tmp_path: Path
) -> None:
    for run, name in ((class_run, "classes"), (clip_run, "words"), (judge_run, "judge")):
        shutil.copytree(run, reference / name)
    (reference / "figures").mkdir()
    code, said = run_command(first_look.main, f"out={tmp_path / 'look'}", *SMALL)
    assert code == 0, said
    assert {path.name for path in (tmp_path / "look").glob("*.png")} == {"classes.png", "words.png"}
    asked = read_provenance(tmp_path / "look" / "words.png")
    assert asked["num_inference_steps"] == 2 and asked["precision"] in ("fp32", "bf16")
    assert asked["prompts"] == list(first_look.PROMPTS) and asked["step"] == 6
    assert len(read_provenance(tmp_path / "look" / "classes.png")["classes"]) == 12
    text = (tmp_path / "look" / "index.html").read_text()
    assert "Trained from zero on petals: 6 steps" in text and "python -m experiments.first_look" in text
    heights = [imageio.imread(tmp_path / "look" / f"{name}.png").shape[0] for name in ("words", "classes")]
    assert heights[0] == heights[1]  # twelve rows of each


def test_named_models_alone_are_sampled(
    reference: Path, class_run: Path, clip_run: Path, run_command: Command, tmp_path: Path
) -> None:
    for run, name in ((class_run, "classes"), (clip_run, "words")):
        shutil.copytree(run, reference / name)
    assert run_command(first_look.main, f"out={tmp_path / 'look'}", "models=[classes]", *SMALL)[0] == 0
    assert [path.name for path in (tmp_path / "look").glob("*.png")] == ["classes.png"]
    code, said = run_command(first_look.main, f"out={tmp_path / 'none'}", "models=[]", *SMALL)
    assert code == 2 and "models=[]: name some" in said
    code, said = run_command(first_look.main, f"out={tmp_path / 'none'}", "models=[clases]", *SMALL)
    assert code == 2 and "keeps no clases; it has classes, words" in said and not (tmp_path / "none").exists()


def test_without_kept_models_it_says_so(reference: Path, run_command: Command, tmp_path: Path) -> None:
    code, said = run_command(first_look.main, f"out={tmp_path / 'look'}", *SMALL)
    assert code == 2 and "no diffusion model is kept there" in said
