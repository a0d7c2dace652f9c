"""lab.train where a CLIP takes part: which one a run learns from, and that it stays the same."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from trained import VAE, same, tensors

import lab
import lab.train
from lab import checkpoint
from lab.clip import load_clip
from lab.runs import read_config

Command = Callable[..., tuple[int, str]]
pytestmark = pytest.mark.usefixtures("elsewhere")


def paint_folder(root: str) -> None:
    """Two classes of eight grey pictures."""
    for name in ("rose", "tulip"):
        (Path(root) / name).mkdir(parents=True)
        for number in range(8):
            picture = np.full((20, 20, 3), 30 * number, np.uint8)
            Image.fromarray(picture).save(Path(root) / name / f"{number}.png")


@pytest.mark.slow
def test_a_clip_run_whose_data_moved_keeps_its_clip(run_command: Command, tiny_settings: tuple[str, ...]) -> None:
    """The folder has another name, and a picture more: the network goes on with the vectors that it learned from."""
    paint_folder("mine")
    of_a_folder = [s for s in tiny_settings if not s.startswith(("data=", "data.size", "data.held_out_size"))]
    of_a_folder += ["+experiment=clip_cond", "data=folder", "hydra.run.dir=run"]
    code, said = run_command(lab.train.main, *of_a_folder, "data.root=mine", "training.steps=1")
    assert code == 0, said
    before = read_config(Path("run")).conditioning.fingerprint
    stamp = (Path("run") / "clip" / "model.safetensors").read_bytes()
    Path("mine").rename("photos")
    Image.fromarray(np.full((20, 20, 3), 77, np.uint8)).save(Path("photos") / "rose" / "more.png")
    code, said = run_command(lab.train.main, *of_a_folder, "data.root=photos", "training.steps=2")
    assert code == 0, said
    assert "goes on with photos" in said and "training flower_clip" not in said
    assert (Path("run") / "clip" / "model.safetensors").read_bytes() == stamp
    assert read_config(Path("run")).conditioning.fingerprint == before


@pytest.mark.slow
def test_a_clip_run_that_goes_on_keeps_its_clip(clip_run: Path, train: Callable[..., Path]) -> None:
    run = train("run", "+experiment=clip_cond", "training.steps=3")
    stamp = (run / "clip" / "model.safetensors").stat().st_mtime_ns
    train("run", "+experiment=clip_cond", "training.steps=6")
    assert (run / "clip" / "model.safetensors").stat().st_mtime_ns == stamp
    assert same(tensors(run), tensors(clip_run))


@pytest.mark.slow
def test_another_clip_in_its_place_is_refused(
    clip_run: Path, refused: Callable[..., str], train: Callable[..., Path]
) -> None:
    run = Path(shutil.copytree(clip_run, "run"))
    shutil.rmtree(run / "clip")
    shutil.copytree(train("other", "+experiment=flower_clip", "training.steps=1") / "clip", run / "clip")
    before = (run / "config.yaml").read_bytes()
    line = refused("run", "+experiment=clip_cond", "training.steps=9")
    assert line.startswith("error: conditioning.fingerprint=")
    assert "was started with" in line
    assert (run / "config.yaml").read_bytes() == before


def test_a_reference_clip_of_the_same_set_is_used(clip_run: Path, train: Callable[..., Path]) -> None:
    shutil.copytree(clip_run / "clip", Path("reference") / "flower_clip_small")
    run = train("run", "+experiment=clip_cond", "training.steps=6")
    assert same(tensors(run), tensors(clip_run))
    # What it has learned from stays with it when another is kept.
    assert {path.name for path in (run / "clip").iterdir()} == {"model.safetensors", "open_clip_config.json"}
    before = lab.load(run).condition(["a red flower"]).vector
    shutil.rmtree("reference")
    assert torch.equal(lab.load(run).condition(["a red flower"]).vector, before)


def test_a_folder_that_is_called_like_the_reference_clips_set_has_a_clip_of_its_own(
    clip_run: Path, run_command: Command, tiny_settings: tuple[str, ...]
) -> None:
    shutil.copytree(clip_run / "clip", Path("reference") / "flower_clip_small")
    paint_folder("petals")
    of_a_folder = [s for s in tiny_settings if not s.startswith(("data=", "data.size", "data.held_out_size"))]
    of_a_folder += ["data=folder", "data.root=petals", "training.steps=1", "hydra.run.dir=run"]
    code, said = run_command(lab.train.main, "+experiment=clip_cond", *of_a_folder)
    assert code == 0, said
    assert (Path("run") / "clip").is_dir()


def test_the_clip_has_the_averaged_weights(train: Callable[..., Path]) -> None:
    """Those that its previews measured."""
    run = train("run", "+experiment=flower_clip", "training.steps=3")
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    clip, average, raw = load_file(run / "clip" / "model.safetensors"), found.tensors("weights"), found.tensors("raw")
    for key, value in clip.items():
        if "running" not in key and "batches" not in key:  # batch normalisation's, measured anew
            assert torch.equal(value, average[f"network.{key}"].to(value.dtype))
    assert not torch.equal(clip["logit_scale"], raw["network.logit_scale"].to(clip["logit_scale"].dtype))


def test_an_autoencoder_does_not_go_on_by_the_eyes_of_another_clip(
    clip_run: Path, train: Callable[..., Path], refused: Callable[..., str]
) -> None:
    """The kept CLIP, whose features are compared, may have become another meanwhile."""
    kept = Path("reference") / "flower_clip"
    shutil.copytree(clip_run / "clip", kept)
    seen = ["+experiment=vae", "data.image_size=32", *VAE, "reconstruction.perceptual=flower_clip"]
    run = train("run", *seen, "training.steps=1")
    assert read_config(run).reconstruction.fingerprint == load_clip(pretrained=str(kept)).fingerprint
    train("run", *seen, "training.steps=2")
    weights = load_file(kept / "model.safetensors")
    moved = {key: tensor + 0.01 if "visual" in key else tensor for key, tensor in weights.items()}
    save_file(moved, kept / "model.safetensors")
    assert "reconstruction.fingerprint=" in refused("run", *seen, "training.steps=3")
