"""Which judge looks at a run: the one that is named, else the one that is kept, if it knows the classes."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import lab
from lab import runs
from lab.clip import load_clip
from lab.errors import LabError
from lab.evaluators import clip_of, judge_of
from lab.judging import load_judge


def test_a_run_or_the_folder_in_it_names_a_judge(judge_run: Path) -> None:
    names = load_judge(judge_run / "judge").class_names
    for folder in (judge_run, judge_run / "judge", str(judge_run)):
        judge = judge_of(names, folder)
        assert judge is not None and judge.class_names == names


def test_a_judge_of_other_classes_is_refused(judge_run: Path) -> None:
    with pytest.raises(LabError, match="it knows other classes than the run's data have"):
        judge_of(("rose",), judge_run)


def test_the_kept_judge_is_taken_where_it_knows_the_classes(
    judge_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = load_judge(judge_run / "judge").class_names
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    assert judge_of(names) is None
    shutil.copytree(judge_run / "judge", tmp_path / "judge")
    kept = judge_of(list(names))
    assert kept is not None and kept.class_names == names
    assert judge_of(("rose",)) is None


def test_the_kept_clip_looks_at_runs_of_its_set_and_at_no_folder_of_that_name(
    class_run: Path, clip_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "REFERENCE", tmp_path / "reference")
    model, copied = lab.load(class_run), tmp_path / "run"
    shutil.copytree(class_run, copied)
    assert clip_of(model, copied) is None
    shutil.copytree(clip_run / "clip", tmp_path / "reference" / "flower_clip")
    kept = clip_of(model, copied)
    assert kept is not None and kept.fingerprint == load_clip(pretrained=str(clip_run / "clip")).fingerprint
    cfg = OmegaConf.load(copied / "config.yaml")
    cfg.data = {"_target_": "lab.data.Folder", "root": "petals"}
    OmegaConf.save(cfg, copied / "config.yaml")
    assert clip_of(model, copied) is None


def test_the_name_of_a_set_may_have_spaces() -> None:
    assert runs.set_of(OmegaConf.create({"image_set": "my flowers 0123456789abcdef"})) == "my flowers"
    assert runs.set_of(OmegaConf.create({"image_set": None})) == ""
