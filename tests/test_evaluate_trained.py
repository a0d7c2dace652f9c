"""Painted flowers' factors come back from what a model has learned of them, as far as a judge can tell."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import lab.train
from lab import evaluate

Command = Callable[..., tuple[int, str]]
SMALL = ("data=petals_upright", "data.image_size=32", "training.preview_every=0", "training.save_every=0")


@pytest.mark.slow
def test_colours_and_counts_are_recovered(
    run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four minutes on two cores; a guess gets an eighth of either."""
    monkeypatch.chdir(tmp_path)
    judge = ("+experiment=judge", *SMALL, "training.steps=400", "training.lr_warmup=50", "hydra.run.dir=judge")
    class_cond = ("+experiment=class_cond", *SMALL, "model=unet_small", "model.patch_size=2", "training=two_cores")
    for asked in (judge, (*class_cond, "training.steps=1200", "training.ema_decay=0.99", "hydra.run.dir=run")):
        code, said = run_command(lab.train.main, *asked)
        assert code == 0, said
    sampled = ("n=240", "num_inference_steps=10", "guidance_scale=2", "cas_steps=0")
    code, said = run_command(evaluate.main, "run=run", "judge=judge", *sampled)
    assert code == 0, said
    found = json.loads(Path("run/evaluation/2_n-240_num_inference_steps-10/evaluation.json").read_text())
    colour, count = (found["factors"][name] for name in ("petal_colour", "petal_count"))
    assert colour["held_out"] > 0.95 and colour["generated"] > 0.9
    assert count["held_out"] > 0.8 and count["generated"] > 0.6
    assert found["generated"]["copies"] < 0.1
