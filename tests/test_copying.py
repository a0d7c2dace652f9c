"""What lies beside a run's weights comes along, and the reference models tell all of their training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lab import export, runs
from lab.copying import BEFORE, TOLD
from lab.runs import REFERENCE, read_config

Command = Callable[..., tuple[int, str]]
MODELS = sorted(path.parent for path in REFERENCE.glob("*/config.yaml"))


def test_its_last_sheet_and_its_numbers_come_along_and_no_real_pictures(copied: Path, tmp_path: Path) -> None:
    for name in ("samples/step_0000003.png", "samples/step_0000006.png", "samples/step_0000006.png.json"):
        (copied / name).parent.mkdir(exist_ok=True)
        (copied / name).write_text(name)
    export.export(copied, tmp_path / "kept")  # and then come what others left there
    (copied / "evaluation" / "2").mkdir(parents=True)
    for name in ("copies.png", "index.html"):
        (copied / "evaluation" / "2" / name).write_text(name)
    for scale, step in (("2", 6), ("4", 3)):
        (copied / "evaluation" / scale).mkdir(exist_ok=True)
        (copied / "evaluation" / scale / "evaluation.json").write_text(json.dumps({"step": step}))
        (tmp_path / "kept" / "evaluation" / scale).mkdir(parents=True)
        (tmp_path / "kept" / "evaluation" / scale / "evaluation.json").write_text(json.dumps({"step": 3}))
    (tmp_path / "kept" / "samples" / "step_0000003.png").touch()
    export.export(copied, tmp_path / "kept")
    there = {str(path.relative_to(tmp_path / "kept")) for path in (tmp_path / "kept").rglob("*.*") if path.is_file()}
    assert {name for name in there if name.startswith("samples")} == {
        "samples/step_0000006.png",
        "samples/step_0000006.png.json",
    }
    assert {name for name in there if name.startswith("evaluation")} == {"evaluation/2/evaluation.json"}


def test_damaged_numbers_are_named(copied: Path, run_command: Command, tmp_path: Path) -> None:
    (copied / "evaluation" / "2").mkdir(parents=True)
    (copied / "evaluation" / "2" / "evaluation.json").write_text('{"step": ')
    code, said = run_command(export.main, f"run={copied}", f"out={tmp_path / 'kept'}")
    assert code == 2 and "evaluation.json: damaged" in said and "evaluate again" in said, said


def test_what_a_decoder_went_on_from_is_kept_with_it_however_often_it_did(vae_run: Path, tmp_path: Path) -> None:
    config = runs.read_config(vae_run)
    for number, origin in enumerate([vae_run, "1", "2"], 1):
        folder = Path(shutil.copytree(vae_run, tmp_path / str(number)))
        config.latents.run, config.seed = str(tmp_path / origin), number
        OmegaConf.save(config, folder / "config.yaml")
    export.export(tmp_path / "3", tmp_path / "kept")
    for number in (1, 2, 3):
        shutil.rmtree(tmp_path / str(number))
    export.export(tmp_path / "kept", tmp_path / "again")
    seeds = [runs.read_config(tmp_path / "again" / ("before/" * depth)).seed for depth in range(4)]
    assert seeds == [3, 2, 1, 0]
    assert not (tmp_path / "again" / ("before/" * 4)).exists()


@pytest.mark.parametrize("kept", MODELS, ids=[path.name for path in MODELS])
def test_each_stage_of_a_training_is_kept(kept: Path) -> None:
    """An autoencoder whose decoder learned on has the stages before that beside it, to its first."""
    stage, stages = kept, 0
    while True:
        assert [name for name in TOLD if not (stage / name).is_file()] == []
        cfg = read_config(stage)
        if cfg.task != "autoencoder" or cfg.latents.run is None:
            break
        stage, stages = stage / BEFORE, stages + 1
    assert (stages > 0) == (kept / BEFORE).is_dir()
