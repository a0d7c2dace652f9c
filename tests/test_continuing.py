"""Going on with a run: what may change meanwhile, and one command at a time."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from lab.continuing import alone_in, refuse_changes, write_config
from lab.errors import LabError
from lab.runs import read_config


def one_line(error: pytest.ExceptionInfo[LabError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def cfg(copied: Path) -> DictConfig:
    return read_config(copied)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.steps", 99), ("training.save_every", 7), ("training.precision", "bf16"), ("training.keep", 5),
        ("sampling.guidance_scale", 9.0), ("preview.count", 3), ("preview.classes", [1]), ("data.cache_dir", "other"),
        ("conditioning.class_names", []), ("training.accumulation", 2), ("clip_training.accumulation", 2),
        ("clip_training.trackers", ["tensorboard"]), ("resume", "always"), ("latents.run", "moved"),
        ("preview.held_out", 9),
    ],
)  # fmt: skip
def test_what_may_change_when_a_run_goes_on(cfg: DictConfig, copied: Path, key: str, value: Any) -> None:
    OmegaConf.update(cfg, key, value)
    refuse_changes(cfg, copied)


@pytest.mark.parametrize(
    ("key", "value", "was"),
    [
        ("training.lr", 0.5, "0.0004"), ("training.batch_size", 4, "8"), ("seed", 3, "0"), ("data.size", 9, "64"),
        ("model.channels", 16, "8"), ("diffusion.prediction_type", "v", "x0"), ("conditioning.dim", 16, "8"),
        ("data._target_", "lab.data.Folder", "lab.data.Petals"), ("conditioning.class_names", ["a", "b"], "["),
        ("name", "another", "class_cond"),
    ],
)  # fmt: skip
def test_what_may_not_change_is_named_with_both_values(
    cfg: DictConfig, copied: Path, key: str, value: Any, was: str
) -> None:
    OmegaConf.update(cfg, key, value)
    with pytest.raises(LabError) as error:
        refuse_changes(cfg, copied)
    assert one_line(error).startswith(f"{key}={value}: the run in {copied} was started with {was}")
    assert "hydra.run.dir" in str(error.value)


def test_a_clip_may_lie_elsewhere_but_not_be_trained_anew(clip_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(clip_run, tmp_path / "run"))
    cfg = read_config(run)
    OmegaConf.update(cfg, "conditioning.pretrained", "moved")
    refuse_changes(cfg, run)
    write_config(cfg, run)
    OmegaConf.update(cfg, "conditioning.pretrained", "elsewhere")
    refuse_changes(cfg, run)
    OmegaConf.update(cfg, "conditioning.pretrained", "flower_clip")
    with pytest.raises(LabError, match=r"conditioning\.pretrained=flower_clip: the run in .* was started with moved"):
        refuse_changes(cfg, run)


@pytest.mark.parametrize(("key", "value"), [("modality_shift", False), ("neighbours", 0), ("nearest", 99)])
def test_how_texts_are_told_may_change(clip_run: Path, key: str, value: Any) -> None:
    cfg = read_config(clip_run)
    OmegaConf.update(cfg, f"conditioning.{key}", value)
    refuse_changes(cfg, clip_run)


def test_the_name_of_the_labs_own_clip_may_change_as_it_says_nothing(clip_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(clip_run, tmp_path / "run"))
    cfg = read_config(run)
    cfg.conditioning.model = "flower_clip_small"
    refuse_changes(cfg, run)
    cfg.conditioning.pretrained = "moved"
    with pytest.raises(LabError, match=r"conditioning\.model=flower_clip_small"):
        refuse_changes(cfg, run)


def test_how_a_clip_would_be_trained_may_change_until_one_is(cfg: DictConfig, copied: Path) -> None:
    OmegaConf.update(cfg, "clip_training.steps", 5)
    refuse_changes(cfg, copied)
    (copied / "clip_training").mkdir()
    with pytest.raises(LabError, match=r"clip_training\.steps=5: the run in .* was started with 2"):
        refuse_changes(cfg, copied)


def test_a_new_folder_and_the_same_config_are_fine(cfg: DictConfig, copied: Path, tmp_path: Path) -> None:
    refuse_changes(cfg, tmp_path / "new")
    refuse_changes(cfg, copied)


def test_other_images_are_warned_of(cfg: DictConfig, copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert str(cfg.image_set).startswith("petals ")
    OmegaConf.update(cfg, "image_set", None)  # as the command line has it
    refuse_changes(cfg, copied)
    assert caplog.messages == []
    OmegaConf.update(cfg, "image_set", "petals 0123")
    refuse_changes(cfg, copied)
    assert re.fullmatch(r".*: started with the images petals \w{16}, and goes on with petals 0123", caplog.messages[0])


def test_a_folder_takes_one_command_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_in(tmp_path / "run"):
        with pytest.raises(LabError, match="run: another process is training there"), alone_in(tmp_path / "run"):
            pytest.fail("two at a time")
        monkeypatch.setenv("RANK", "1")  # another process of the same command
        with alone_in(tmp_path / "run"):
            (tmp_path / "run" / "log.csv").touch()
        monkeypatch.delenv("RANK")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.csv"]
    with alone_in(tmp_path / "run"), alone_in(tmp_path / "other"):
        pass
    assert not (tmp_path / "other").exists()  # nothing came into it


def test_going_on_from_a_damaged_config_is_refused(cfg: DictConfig, copied: Path) -> None:
    (copied / "config.yaml").write_text("task: [diffusion\n")
    with pytest.raises(LabError, match=r"config\.yaml: damaged"):
        refuse_changes(cfg, copied)


def test_what_an_older_version_had_no_key_for_was_at_its_default(copied: Path) -> None:
    cfg = OmegaConf.load(copied / "config.yaml")
    assert isinstance(cfg, DictConfig)
    old = cfg.copy()
    for key in ("latents", "reconstruction"):
        del old[key]
    for node, key in (("model", "token_dim"), ("conditioning", "tokens")):
        del old[node][key]
    write_config(old, copied)
    refuse_changes(cfg, copied)
    cfg.model.upsample_kernel = 1
    del old.model["upsample_kernel"]
    write_config(old, copied)
    with pytest.raises(LabError, match=r"model\.upsample_kernel=1: the run in .* was started with 3"):
        refuse_changes(cfg, copied)
    cfg.model.upsample_kernel = 3
    cfg.conditioning.tokens = 3
    with pytest.raises(LabError, match=r"conditioning\.tokens=3: the run in"):
        refuse_changes(cfg, copied)
