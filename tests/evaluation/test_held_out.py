"""What is measured on held-out pictures is what the training said of itself, and goes where the model goes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import compare, evaluate, export
from lab.training.log import read_rows

Command = Callable[..., tuple[int, str]]


def measured(run_command: Command, run: Path, out: Path) -> dict[str, float]:
    code, said = run_command(evaluate.main, f"run={run}", f"out={out}")
    assert code == 0, said
    found = json.loads((out / "evaluation.json").read_text())
    assert found["n"] == 40 and f"of {found['n']} held-out pictures" in said
    return dict(found["held_out"])


def test_of_an_autoencoder(train: Callable[..., Path], run_command: Command, tmp_path: Path) -> None:
    small = ("autoencoder.channels=16", "autoencoder.blocks=1", "reconstruction.perceptual=none")
    run = train("vae", "+experiment=vae", "training.steps=2", "training.preview_every=2", *small)
    found = measured(run_command, run, tmp_path / "found")
    told = [row for row in read_rows(run / "log.csv") if row.get("psnr")][-1]
    assert found == pytest.approx({key: float(told[key]) for key in ("psnr", "ssim")}, rel=1e-3)


def test_what_an_autoencoder_costs_is_told_in_the_judges_space(
    train: Callable[..., Path], judge_run: Path, run_command: Command, tmp_path: Path
) -> None:
    """The figures of held-out pictures themselves are those that stand in evaluations of samples."""
    small = ("autoencoder.channels=16", "autoencoder.blocks=1", "reconstruction.perceptual=none")
    run = train("vae", "+experiment=vae", "training.steps=2", *small)
    latent = train("latent", "+experiment=latent_class_cond", f"latents.run={run}", "training.steps=1")
    asked = (f"judge={judge_run}", "n=24", f"out={tmp_path / 'found'}")
    for of, few in ((run, ()), (latent, ("num_inference_steps=2",))):
        code, said = run_command(evaluate.main, f"run={of}", *asked, *few)
        assert code == 0, said
        found = json.loads((tmp_path / "found" / "evaluation.json").read_text())
        if of == run:
            told = found["held_out"]
    assert told["real_fid"] == pytest.approx(found["held_out"]["fid"], rel=1e-4)
    assert told["real_kid"] == pytest.approx(found["held_out"]["kid"], rel=1e-3)
    assert told["fid"] > told["real_fid"] and told["kid"] > told["real_kid"]  # it has learned nothing yet


def test_of_a_judge(judge_run: Path, run_command: Command, tmp_path: Path) -> None:
    found = measured(run_command, judge_run, tmp_path / "found")
    told = json.loads((judge_run / "judge" / "judge.json").read_text())["held_out"]
    assert found == {key: told[key] for key in ("top1", "top5")}


def test_of_a_clip_and_its_copy(train: Callable[..., Path], run_command: Command, tmp_path: Path) -> None:
    run = train("clip", "+experiment=flower_clip", "training.steps=2")
    told = json.loads((run / "clip" / "open_clip_config.json").read_text())["training"]["retrieval"]
    assert measured(run_command, run, run / "evaluation" / "held_out") == told
    kept = export.export(run, tmp_path / "kept")
    copied = json.loads((kept / "evaluation" / "held_out" / "evaluation.json").read_text())
    assert copied["held_out"] == told and copied["step"] is None
    assert measured(run_command, kept, tmp_path / "again") == told
    code, said = run_command(compare.main, f"runs=[{kept}]", f"out={tmp_path}")
    assert code == 2 and "it is no diffusion model" in said
