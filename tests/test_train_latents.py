"""lab.train with autoencoders, and diffusion in their latents."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from trained import VAE, rows, same, tensors

import lab.train
from lab import runs

Command = Callable[..., tuple[int, str]]
REFERENCE = runs.REFERENCE
pytestmark = pytest.mark.usefixtures("elsewhere")
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


def test_a_decoder_learns_on_and_the_latents_stay(vae: Path, train: Callable[..., Path]) -> None:
    small = ("data.image_size=32", "reconstruction.perceptual=none")
    tuned = train("tuned", "+experiment=vae_decoder", "latents.run=vae", "training.steps=3", *small)
    before, after = runs.load_autoencoder(vae), runs.load_autoencoder(tuned)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = before.encode(images)
        assert torch.equal(after.encode(images), latents)
        assert not torch.equal(after.decode(latents), before.decode(latents))
    assert runs.read_config(tuned).autoencoder == runs.read_config(vae).autoencoder
    shutil.rmtree(vae)
    train("tuned", "+experiment=vae_decoder", "latents.run=vae", "training.steps=4", *small)  # has all it needs
    assert len(rows(tuned)) >= 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("+experiment=vae_decoder", "latents.run=vae"), "latents.run=vae: no trained autoencoder there"),
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
