"""lab.train: every experiment trains, the seed decides it, and a run that goes on is the run in one go."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import lab.train
from lab import checkpoint, runs
from lab.config import CONF
from lab.render import read_provenance

Command = Callable[..., tuple[int, str]]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
VAE = ("autoencoder.channels=16", "autoencoder.blocks=1", "reconstruction.perceptual=none")
FORMULAS = sorted(path.stem for path in (CONF / "diffusion").glob("*.yaml"))


REFERENCE = runs.REFERENCE


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "REFERENCE", tmp_path / "reference")


@pytest.fixture
def train(run_command: Command, tiny_settings: tuple[str, ...], tmp_path: Path) -> Callable[..., Path]:
    """train("name", "training.steps=3", ...): the folder of a tiny run that went well."""

    def train(name: str, *overrides: str) -> Path:
        code, said = run_command(lab.train.main, *tiny_settings, f"hydra.run.dir={name}", *overrides)
        assert code == 0, said
        return tmp_path / name

    return train


@pytest.fixture
def refused(run_command: Command, tiny_settings: tuple[str, ...]) -> Callable[..., str]:
    """The one line with which a tiny run ends that cannot be."""

    def refused(name: str, *overrides: str) -> str:
        code, said = run_command(lab.train.main, *tiny_settings, f"hydra.run.dir={name}", *overrides)
        assert code == 2, said
        (line,) = (line for line in said.splitlines() if line.startswith("error: "))
        assert "Traceback" not in said
        return line

    return refused


def tensors(run: Path) -> dict[str, Tensor]:
    """All that the newest checkpoint holds."""
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    return {f"{n}/{k}": v for n in ("raw", "weights", "optimizer") for k, v in found.tensors(n).items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def rows(run: Path) -> list[dict[str, str]]:
    """The log without the columns that time decides."""
    with (run / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


# -- every experiment --------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_looks_and_saves(
    experiment: str, train: Callable[..., Path], clip_run: Path, vae_run: Path
) -> None:
    """Two steps on tiny petals. The CLIP is the one of `clip_run`: another test trains it."""
    shutil.copytree(clip_run / "clip", Path("reference") / "flower_clip_small")
    quick = ["training.steps=2", "training.preview_every=2", "preview.classes=null"]
    if experiment == "vae":
        quick += VAE
    if experiment.startswith("latent"):
        quick += [f"latents.run={vae_run}", "data.image_size=32"]
    run = train("run", f"+experiment={experiment}", *quick, "preview.count=1")
    assert [row["step"] for row in rows(run)] == ["1", "2"]
    assert all(float(row["loss"]) > 0 for row in rows(run))
    assert (run / "loss.png").is_file()
    assert checkpoint.latest(run / "checkpoints").step == 2  # type: ignore[union-attr]
    task = OmegaConf.load(run / "config.yaml").task
    assert (run / "samples" / "step_0000002.png").is_file() == (task != "flower_clip")
    assert (run / "clip").is_dir() == (task == "flower_clip")


@pytest.mark.parametrize("diffusion", FORMULAS)
def test_every_formula_trains_without_conditions(diffusion: str, train: Callable[..., Path]) -> None:
    options = [f"diffusion={diffusion}", "conditioning=unconditional", "training.class_balanced=true"]
    run = train("run", *options, "training.steps=2", "training.preview_every=2")
    assert len(rows(run)) == 2
    assert read_provenance(run / "samples" / "step_0000002.png")["step"] == 2


# -- the seed ----------------------------------------------------------------------------------------


def test_the_seed_decides_a_run(train: Callable[..., Path]) -> None:
    """Down to the first embedding: whatever drew random numbers before does not matter."""
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(made))
        made.append(train(name, "+experiment=class_cond", "training.steps=3", f"seed={seed}"))
    one, again, other = map(tensors, made)
    assert same(one, again)
    assert rows(made[0]) == rows(made[1])
    assert all(not torch.equal(one[key], other[key]) for key in one if key.endswith("embedding.weight"))


# -- going on ----------------------------------------------------------------------------------------


def test_a_class_run_that_goes_on_is_the_run_in_one_go(class_run: Path, train: Callable[..., Path]) -> None:
    """`class_run` took six steps at once."""
    settings = ["+experiment=class_cond", "conditioning.dim=8"]
    run = train("run", *settings, "training.steps=4")
    shutil.rmtree(run / "checkpoints" / "step_00000004")  # as if killed: what follows the third step is lost
    train("run", *settings, "training.steps=6")
    assert same(tensors(run), tensors(class_run))
    assert rows(run) == rows(class_run)


def test_a_clip_run_that_goes_on_keeps_its_clip(clip_run: Path, train: Callable[..., Path]) -> None:
    run = train("run", "+experiment=clip_cond", "training.steps=3")
    stamp = (run / "clip" / "model.safetensors").stat().st_mtime_ns
    train("run", "+experiment=clip_cond", "training.steps=6")
    assert (run / "clip" / "model.safetensors").stat().st_mtime_ns == stamp
    assert same(tensors(run), tensors(clip_run))


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


def test_a_setting_that_changed_is_named_with_both_values(class_run: Path, refused: Callable[..., str]) -> None:
    shutil.copytree(class_run, "run")
    changed = ["+experiment=class_cond", "conditioning.dim=8", "training.lr=0.1"]
    line = refused("run", *changed)
    assert line.startswith("error: training.lr=0.1: the run in ")
    assert "was started with 0.0004; use that to go on with it, or another hydra.run.dir" in line


def test_a_reference_clip_of_the_same_set_is_used(clip_run: Path, train: Callable[..., Path]) -> None:
    shutil.copytree(clip_run / "clip", Path("reference") / "flower_clip_small")
    run = train("run", "+experiment=clip_cond", "training.steps=6")
    assert not (run / "clip").exists()
    assert same(tensors(run), tensors(clip_run))


def test_a_folder_that_is_called_like_the_reference_clips_set_has_a_clip_of_its_own(
    clip_run: Path, run_command: Command, tiny_settings: tuple[str, ...]
) -> None:
    shutil.copytree(clip_run / "clip", Path("reference") / "flower_clip_small")
    for name in ("rose", "tulip"):
        (Path("petals") / name).mkdir(parents=True)
        for number in range(8):
            picture = np.full((20, 20, 3), 30 * number, np.uint8)
            Image.fromarray(picture).save(Path("petals") / name / f"{number}.png")
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


# -- previews that cannot be, told before training ---------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["preview.classes=[nettle]"], "preview: classes=nettle: no such class"),
        (["preview.prompts=[nettle]"], "preview: this run is class-conditional"),
        (["preview.classes=[0]", "preview.prompts=[a]"], "preview: prompts and classes are given together"),
        (["conditioning=unconditional", "preview.classes=[0]"], "preview: this run is unconditional"),
        (["preview.count=0"], "preview.count=0: use at least 1"),
        (["sampling.sampler=dimm"], "sampling.sampler=dimm: use one of"),
        (["sampling.num_inference_steps=1001"], "sampling.num_inference_steps=1001: use at most"),
    ],
)
def test_previews_are_checked_before_training(overrides: list[str], told: str, refused: Callable[..., str]) -> None:
    assert told in refused("run", "training.preview_every=1000", *overrides)
    assert not Path("run").exists()


def test_no_previews_need_no_classes(train: Callable[..., Path]) -> None:
    train("run", "training.steps=1", "preview.classes=[nettle]")


# -- resume ------------------------------------------------------------------------------------------


def test_a_run_may_be_refused_or_demanded(
    class_run: Path, tmp_path: Path, refused: Callable[..., str], train: Callable[..., Path]
) -> None:
    setup = ("+experiment=class_cond", "conditioning.dim=8", "training.steps=6")
    assert "resume=never" in refused(str(class_run), *setup, "resume=never")
    assert "resume=always" in refused("none", *setup, "resume=always")
    assert not (tmp_path / "none").exists()
    train(str(class_run), *setup, "resume=always")
    train("new", *setup, "resume=never")


# -- full disks --------------------------------------------------------------------------------------


def kib(run: Path, *names: str) -> int:
    """What parts of a run take on a disk of 4 KiB blocks."""
    files = [path for name in names for path in run.glob(name) if path.is_file()]
    return sum(-(-path.stat().st_size // 4096) * 4 for path in files)


def test_a_full_disk_while_saving(
    class_run: Path, small_disk: Callable[[int], Path], refused: Callable[..., str], train: Callable[..., Path]
) -> None:
    """Room for a checkpoint and a half."""
    run = small_disk(int(1.5 * kib(class_run, "checkpoints/step_00000003/*")) + 40)
    settings = ["+experiment=class_cond", "conditioning.dim=8", "training.steps=6"]
    line = refused(str(run), *settings)
    assert str(run / "checkpoints" / "step_00000006") in line
    assert "No space left on device" in line
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_00000003"]
    checkpoint.verify(run / "checkpoints" / "step_00000003")
    copy = shutil.copytree(run, "copy")
    assert same(tensors(train(str(copy), *settings)), tensors(class_run))  # with room, it goes on as if nothing was


def test_a_full_disk_while_looking(
    class_run: Path, small_disk: Callable[[int], Path], refused: Callable[..., str]
) -> None:
    """Room for a checkpoint, but not for a sheet of 32 samples beside it."""
    run = small_disk(kib(class_run, "checkpoints/step_00000003/*") + 48)
    settings = ["+experiment=class_cond", "conditioning.dim=8", "training.steps=9", "training.preview_every=4"]
    line = refused(str(run), *settings)
    assert str(run / "samples" / "step_0000004.png") in line
    assert "No space left on device" in line
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    assert found.step == 3


def test_a_full_disk_before_anything_is_written(small_disk: Callable[[int], Path], refused: Callable[..., str]) -> None:
    disk = small_disk(4)
    (disk / "full").write_bytes(bytes(4096))
    assert "No space left on device" in refused(str(disk / "run"), "conditioning=unconditional", "training.steps=1")
    assert [path.name for path in disk.iterdir()] == ["full"]


# -- autoencoders and their latents ------------------------------------------------------------------

LATENT = ("+experiment=latent_class_cond", "conditioning.dim=8", "data.image_size=32", "latents.run=vae")


@pytest.fixture
def vae(vae_run: Path, tmp_path: Path) -> Path:
    """A copy, in the folder that LATENT names."""
    return Path(shutil.copytree(vae_run, tmp_path / "vae"))


def test_a_latent_run_has_its_autoencoder_and_scale_in_its_checkpoint(vae: Path, train: Callable[..., Path]) -> None:
    run = train("latent", *LATENT, "training.steps=3")
    shutil.rmtree(vae)
    model, original = lab.load(run), runs.load_autoencoder(run)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(model.autoencoder.encode(images), original.encode(images))
    assert float((model.autoencoder.latent_std - 1).abs().max()) > 1e-3
    assert not model.autoencoder.bounded
    samples = model.sample(classes=[0], num_inference_steps=2, output="tensor", height=32, width=64)
    assert isinstance(samples, Tensor) and samples.shape == (1, 3, 32, 64)


@pytest.mark.slow
def test_a_latent_run_goes_on_bit_for_bit_though_the_autoencoders_run_is_gone(
    vae: Path, train: Callable[..., Path]
) -> None:
    whole = train("whole", *LATENT, "training.steps=6")
    parts = train("parts", *LATENT, "training.steps=3")
    shutil.rmtree(vae)
    train("parts", *LATENT, "training.steps=6")
    assert same(tensors(whole), tensors(parts))
    assert rows(whole) == rows(parts)


@pytest.mark.slow
def test_another_autoencoder_is_refused(vae: Path, train: Callable[..., Path], refused: Callable[..., str]) -> None:
    train("latent", *LATENT, "training.steps=3")
    shutil.rmtree(vae)
    train("vae", "+experiment=vae", "data.image_size=32", "training.steps=4", "seed=5", *VAE)
    assert "latents.fingerprint=" in refused("latent", *LATENT, "training.steps=6")
    shutil.rmtree(vae)
    train("vae", "+experiment=vae", "autoencoder=vq", "data.image_size=32", "training.steps=1", *VAE)
    assert "latent was started with lab.autoencoders.AutoencoderKL" in refused("latent", *LATENT)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (LATENT, "latents.run=vae: no trained autoencoder there; python -m lab.train +experiment=vae"),
        (("+experiment=class_cond", "autoencoder=kl"), "give latents.run=results/vae"),
        (("+experiment=vae", "autoencoder=identity"), "autoencoder=identity: there is nothing to train"),
        (("+experiment=vae", "data.image_size=18"), "data.image_size=18: use a multiple of autoencoder.factor=4"),
        (("+experiment=vae", "autoencoder.factor=3"), "autoencoder.factor=3: use 1, 2, 4"),
        (("+experiment=vae", "reconstruction.error=l3"), "reconstruction.error=l3: use one of l1, l2"),
        (("+experiment=vae",), "reconstruction.perceptual=flower_clip: "),
        (("+experiment=vae", "data.image_size=16", "reconstruction.adversarial_weight=1"), "data.image_size of 32"),
        (("+experiment=latent_class_cond", "latents.crops=0"), "latents.crops=0: use at least 1"),
    ],
)
def test_autoencoders_that_cannot_be(refused: Callable[..., str], overrides: tuple[str, ...], words: str) -> None:
    assert words in refused("run", *overrides)
    assert not Path("run").exists()


def test_an_autoencoder_beside_latents_run_must_be_its(vae: Path, refused: Callable[..., str]) -> None:
    assert "autoencoder: differs from that of latents.run=vae" in refused("run", *LATENT, "autoencoder=vq")


def test_latents_too_small_for_the_network_are_told_in_pixels(vae: Path, refused: Callable[..., str]) -> None:
    line = refused("run", *LATENT, "data.image_size=36")
    assert "the latents of data.image_size=36 at autoencoder.factor=4" in line


def test_an_autoencoder_of_other_pictures_is_warned_of(
    vae: Path, run_command: Command, tiny_settings: tuple[str, ...]
) -> None:
    config = OmegaConf.load(vae / "config.yaml")
    config.image_set = "oxford102 0123456789abcdef"
    OmegaConf.save(config, vae / "config.yaml")
    _, said = run_command(lab.train.main, *tiny_settings, *LATENT, "training.steps=1", "hydra.run.dir=latent")
    assert "latents.run=vae: learned on oxford102, not on petals" in said


def test_the_default_judge_is_the_reference_clip(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "REFERENCE", REFERENCE)
    run = train("vae", "+experiment=vae", "data.image_size=32", "training.steps=2", *VAE[:2])
    assert all(float(row["perceptual"]) > 0 for row in rows(run))


def test_the_autoencoder_of_a_pixel_run_is_none(train: Callable[..., Path], refused: Callable[..., str]) -> None:
    train("pixels", "+experiment=class_cond", "conditioning.dim=8", "training.steps=1")
    line = refused("run", "+experiment=latent_class_cond", "latents.run=pixels")
    assert "latents.run=pixels: that run has no autoencoder" in line
