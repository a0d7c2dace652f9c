"""Runs on disk: the model that comes from one, wherever it lies, and what is refused."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import lab
from lab import checkpoint, runs
from lab.continuing import write_config
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.runs import build_model, clip_trained_on, read_config


def sampled(model: DiffusionModel, **asked: Any) -> Tensor:
    samples = model.sample(**asked, output="tensor")
    assert isinstance(samples, Tensor)
    return samples


def one_line(error: pytest.ExceptionInfo[LabError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# -- what comes from a run ---------------------------------------------------------------------------


def test_a_loaded_model_is_the_average_that_was_saved(class_run: Path) -> None:
    model = lab.load(class_run)
    found = checkpoint.latest(class_run / "checkpoints")
    assert found is not None
    weights, raw = found.tensors("weights"), found.tensors("raw")
    state = model.state_dict()
    assert {f"model.{key}" for key in state} == weights.keys() == raw.keys()
    assert all(torch.equal(value, weights[f"model.{key}"]) for key, value in state.items())
    own = lab.load(class_run, weights="raw").state_dict()
    assert all(torch.equal(value, raw[f"model.{key}"]) for key, value in own.items())
    assert not model.training
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_raw_and_averaged_weights_sample_differently(class_run: Path) -> None:
    one, other = (sampled(lab.load(class_run, weights=weights), classes=[0]) for weights in ("weights", "raw"))
    assert float((one - other).abs().max()) > 1e-4


def test_it_knows_its_defaults_its_classes_and_where_it_comes_from(class_run: Path) -> None:
    model = lab.load(str(class_run), device="cpu", precision="fp32")
    assert model.image_size == 16
    assert model.sampling.num_inference_steps == 3
    assert "five round red petals" in model.conditioner.class_names  # type: ignore[operator]
    manifest = json.loads((class_run / "checkpoints" / "step_00000006" / "manifest.json").read_text())
    digest = manifest["files"]["weights.safetensors"]["sha256"]
    assert model.provenance == {"run": str(class_run), "step": 6, "weights_sha256": digest, "precision": "fp32"}


def test_a_run_is_the_same_however_its_folder_is_written(class_run: Path) -> None:
    """Samples that an evaluation has kept are known by it."""
    assert lab.load(f"{class_run}/").provenance == lab.load(class_run).provenance


def test_a_run_may_be_moved(class_run: Path, copied: Path) -> None:
    asked = {"classes": ["five round red petals", 3], "seed": 4}
    before = sampled(lab.load(class_run), **asked)
    assert torch.equal(before, sampled(lab.load(copied), **asked))
    assert torch.equal(before, sampled(lab.load(copied.rename(copied.with_name("elsewhere"))), **asked))


def test_a_run_with_its_own_clip_may_be_moved_too(clip_run: Path, tmp_path: Path) -> None:
    """Its folder holds the CLIP, and what is left behind is not looked for."""
    asked = {"prompts": ["a red flower", "a blue flower with five petals"]}
    before = sampled(lab.load(clip_run), **asked)
    copy = shutil.copytree(clip_run, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("clip_training"))
    model = lab.load(copy)
    assert torch.equal(before, sampled(model, **asked))
    assert model.conditioner.pretrained == str(copy / "clip")
    assert float((before[0] - before[1]).abs().max()) > 0


def test_a_run_without_a_clip_of_its_own_takes_the_reference(
    clip_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sampled(lab.load(clip_run), prompts=["a red flower"])
    ignored = shutil.ignore_patterns("clip", "clip_training")
    copy = Path(shutil.copytree(clip_run, tmp_path / "run", ignore=ignored))
    monkeypatch.setattr(runs, "REFERENCE", tmp_path / "reference")
    with pytest.raises(LabError, match="flower_clip"):
        sampled(lab.load(copy), prompts=["a red flower"])
    shutil.copytree(clip_run / "clip", tmp_path / "reference" / "flower_clip_small")
    assert torch.equal(before, sampled(lab.load(copy), prompts=["a red flower"]))
    (tmp_path / "reference" / "flower_clip_small" / "model.safetensors").write_bytes(b"")
    with pytest.raises(LabError, match="flower_clip") as error:
        sampled(lab.load(copy), prompts=["a red flower"])
    one_line(error)


def test_weights_of_another_clip_are_refused(clip_run: Path, tmp_path: Path) -> None:
    cfg = OmegaConf.load(clip_run / "config.yaml")
    cfg.conditioning.fingerprint = "0123456789abcdef"
    copy = Path(shutil.copytree(clip_run, tmp_path / "run", ignore=shutil.ignore_patterns("clip_training")))
    OmegaConf.save(cfg, copy / "config.yaml")
    with pytest.raises(LabError, match="the run was trained with 0123456789abcdef"):
        sampled(lab.load(copy), prompts=["a red flower"])


def test_which_set_a_clip_was_trained_on(clip_run: Path, tmp_path: Path) -> None:
    assert clip_trained_on(clip_run / "clip") == "petals"
    assert clip_trained_on(tmp_path) is None


# -- what is refused ---------------------------------------------------------------------------------


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"run=.*nowhere: no config\.yaml there; name a folder") as error:
        lab.load(tmp_path / "nowhere")
    one_line(error)


def test_runs_of_other_tasks_and_wrong_choices_are_refused(copied: Path) -> None:
    with pytest.raises(LabError, match=r"weights=best: use weights \(averaged\) or raw"):
        lab.load(copied, weights="best")
    for device in ("toaster", "cuda:7", "meta:x"):
        with pytest.raises(LabError, match=f"device={device}: cannot be used here") as error:
            lab.load(copied, device=device)
        one_line(error)
    cfg = read_config(copied)
    cfg.task = "flower_clip"
    write_config(cfg, copied)
    with pytest.raises(LabError, match="it trained task=flower_clip"):
        lab.load(copied)


def test_a_run_without_a_checkpoint_is_named(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(LabError, match=r"no checkpoint in .*checkpoints yet; train it first"):
        lab.load(copied)


def test_damaged_checkpoints_fall_back_and_run_out(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [copied / "checkpoints" / f"step_0000000{step}" / "weights.safetensors" for step in (6, 3)]
    files[0].write_bytes(files[0].read_bytes()[:100])
    with caplog.at_level(logging.WARNING, logger="lab"):
        assert lab.load(copied).provenance["step"] == 3
    assert str(files[0]) in caplog.text
    files[1].unlink()
    with pytest.raises(LabError, match="all 2 checkpoints are damaged") as error:
        lab.load(copied)
    one_line(error)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"task: [diffusion\n",
        b"just words",
        b"- a\n- list\n",
        b"\xff\xfe\x00",
        b"task: diffusion\n",
        b"a: ${b}\n",
        b"a: {b",
    ],
)
def test_a_damaged_config_is_named_with_a_remedy(copied: Path, content: bytes) -> None:
    (copied / "config.yaml").write_bytes(content)
    with pytest.raises(LabError, match=r"config\.yaml: damaged.*; restore the file, or train anew") as error:
        lab.load(copied)
    one_line(error)


def test_a_config_cut_short_is_damaged_wherever_it_is_cut(copied: Path) -> None:
    text = (copied / "config.yaml").read_text()
    for end in range(0, text.index("\nclip_model:"), 97):  # what sampling needs lies before
        (copied / "config.yaml").write_text(text[:end])
        with pytest.raises(LabError) as error:
            sampled(lab.load(copied), classes=["five round red petals"])
        one_line(error)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model.channels", 16, "does not fit the model that"),
        ("model.chanels", 16, "did you mean model.channels?"),
        ("model._target_", "os.system", "only classes of the lab"),
        ("diffusion.prediction_type", "y", "use one of eps, x0, v"),
        ("data.image_size", "big", "data.image_size=big: must be int"),
        ("conditioning", 5, "conditioning=5"),
    ],
)
def test_a_config_that_was_edited_wrongly_is_one_line(copied: Path, key: str, value: Any, told: str) -> None:
    cfg = OmegaConf.load(copied / "config.yaml")
    OmegaConf.update(cfg, key, value, force_add=True)
    OmegaConf.save(cfg, copied / "config.yaml")
    with pytest.raises(LabError, match=re.escape(told)) as error:
        lab.load(copied)
    one_line(error)


# -- building ----------------------------------------------------------------------------------------


@pytest.fixture
def cfg(copied: Path) -> DictConfig:
    return read_config(copied)


def test_an_empty_model_takes_no_memory_and_no_random_numbers(cfg: DictConfig) -> None:
    before = torch.random.get_rng_state()
    model = build_model(cfg, empty=True)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(before, torch.random.get_rng_state())
    assert [p.shape for p in model.parameters()] == [p.shape for p in build_model(cfg).parameters()]
