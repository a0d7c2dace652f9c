"""Reconstructions: the command on tiny runs, and what its numbers mean."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lab.train
from experiments import vae_reconstructions
from lab.autoencoders import AutoencoderKL, AutoencoderVQ
from lab.data import ImageSet

Command = Callable[..., tuple[int, str]]
SMALL = {"channels": 16, "blocks": 1}


def images() -> ImageSet:
    pixels = torch.randint(256, (5, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet("random", pixels, torch.full((5,), -1), (), 16, (), (), "0" * 16)


def test_ratios_count_numbers_and_bits() -> None:
    kl = vae_reconstructions.measure("a", AutoencoderKL(factor=4, latent_channels=4, **SMALL).eval(), images())
    assert (kl.kind, kl.factor, kl.fewer_numbers) == ("KL", 4, 12)
    assert kl.fewer_bits == pytest.approx(6)  # 16 places of 24 bits in 4 values of 16
    vq = vae_reconstructions.measure("b", AutoencoderVQ(factor=8, codebook_size=256, **SMALL).eval(), images())
    assert (vq.kind, vq.fewer_numbers) == ("VQ", 48)
    assert vq.fewer_bits == pytest.approx(64 * 24 / 8)


def test_a_perfect_autoencoder_has_no_error() -> None:
    class Perfect(AutoencoderKL):
        def moments(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([images, torch.zeros_like(images)], dim=1)

        def reconstruct(self, z: torch.Tensor) -> torch.Tensor:
            return z

    row = vae_reconstructions.measure("a", Perfect(factor=1, latent_channels=3, patch_size=1, **SMALL), images())
    assert row.psnr > 100 and row.ssim == pytest.approx(1)


def test_the_command_writes_a_table_sheets_and_a_page(
    run_command: Command, tiny_settings: tuple[str, ...], tmp_path: Path
) -> None:
    runs = []
    for kind in ("kl", "vq"):
        small = ("autoencoder.channels=16", "autoencoder.blocks=1", "reconstruction.perceptual=none")
        name = tmp_path / kind
        options = ("+experiment=vae", f"autoencoder={kind}", "training.steps=1", f"hydra.run.dir={name}", *small)
        code, said = run_command(lab.train.main, *tiny_settings, *options)
        assert code == 0, said
        runs.append(str(name))
    out = tmp_path / "out"
    code, said = run_command(vae_reconstructions.main, f"runs=[{','.join(runs)}]", f"out={out}", "count=2")
    assert code == 0, said
    with (out / "reconstructions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["KL", "VQ"]
    assert {path.name for path in out.glob("*.png")} == {"0_kl.png", "1_vq.png"}
    assert "What does an autoencoder keep?" in (out / "index.html").read_text()


@pytest.mark.parametrize(
    ("override", "words"),
    [("count=1", "runs=[...]: name folders"), ("runs=[nowhere]", "run=nowhere: no config.yaml")],
)
def test_mistakes_are_one_line(run_command: Command, override: str, words: str) -> None:
    code, said = run_command(vae_reconstructions.main, override)
    assert code == 2 and words in said
