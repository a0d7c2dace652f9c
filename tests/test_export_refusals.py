"""Copies that lab.export does not make, and what was there stays."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lab import export, runs
from lab.errors import LabError


def test_a_later_copy_is_not_overwritten(class_run: Path, tmp_path: Path) -> None:
    saved = export.export(class_run, tmp_path / "kept")
    saved.rename(saved.with_name("step_00000009"))
    with pytest.raises(LabError, match="holds step_00000009, a later one than step_00000006"):
        export.export(class_run, tmp_path / "kept")
    shutil.copy(class_run / "config.yaml", tmp_path)
    with pytest.raises(LabError, match="no checkpoint in"):
        export.export(tmp_path, tmp_path / "kept")


def test_a_copy_of_another_run_is_not_overwritten(class_run: Path, copied: Path, tmp_path: Path) -> None:
    export.export(class_run, tmp_path / "kept")
    kept = {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    config = OmegaConf.load(copied / "config.yaml")
    config.seed, config.sampling.guidance_scale = 7, 9.0  # the second is no reason
    OmegaConf.save(config, copied / "config.yaml")
    with pytest.raises(LabError, match=r"out=.*kept: holds another run, with seed=0 and not 7; delete it, or name"):
        export.export(copied, tmp_path / "kept")
    assert {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()} == kept
    config.seed = 0
    OmegaConf.save(config, copied / "config.yaml")
    export.export(copied, tmp_path / "kept")
    assert runs.read_config(tmp_path / "kept").sampling.guidance_scale == 9.0


def test_what_is_no_copy_of_a_run_is_left_alone(class_run: Path, judge_run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "samples" / "holiday.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"sun")
    for run in (class_run, judge_run):
        with pytest.raises(LabError, match=r"out=.*mine: holds something else than a copy of a run; name another"):
            export.export(run, tmp_path / "mine")
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [mine]
    export.export(class_run, tmp_path / "kept")
    (tmp_path / "kept" / "samples").mkdir(exist_ok=True)
    beside = Path(shutil.copy(mine, tmp_path / "kept" / "samples"))
    export.export(class_run, tmp_path / "kept")
    assert beside.read_bytes() == b"sun"


def test_pixels_have_no_decoder(class_run: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"decoder=vae: .* is no diffusion in latents"):
        export.export(class_run, tmp_path / "kept", decoder=Path("vae"))
