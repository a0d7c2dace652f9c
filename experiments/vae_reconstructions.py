"""What does an autoencoder keep? python -m experiments.vae_reconstructions runs='[results/vae]' shows and measures it.

Held-out pictures, the channels of their latents, and what comes back of them; for each run PSNR, SSIM, and by how much
the latents are smaller. The sheets hold pictures of the data set: whether they may be shared its licence says.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from experiments.common import to_csv
from lab import LabError
from lab.autoencoders import Autoencoder, AutoencoderVQ
from lab.cli import entry_point
from lab.commands import command_line
from lab.config import check_types
from lab.data import ImageSet
from lab.render import Section, grid, page, save_image
from lab.render.provenance import write_whole
from lab.runs import check_run, load_autoencoder, pictures_of
from lab.there_and_back import reconstruction

logger = logging.getLogger(__name__)
SPREAD = 2.5  # standard deviations of a latent from black to grey and from grey to white
TYPES: dict[str, Any] = {
    "runs": Sequence[str] | None,
    "count": int,
    **dict.fromkeys(("device", "data.root", "data.cache_dir"), str | None),
    "out": str,
}


@dataclass(frozen=True)
class Row:
    """One autoencoder over all held-out pictures."""

    run: str
    kind: str
    factor: int
    latent_channels: int
    fewer_numbers: float  # values of an image to values of its latents
    fewer_bits: float  # 8 bits a value of an image, to 16 a value of a latent or the bits of a codebook's number
    parameters: int
    psnr: float  # dB
    ssim: float


def check(cfg: DictConfig) -> None:
    """LabError for runs that are none, and for a count below 1."""
    check_types(cfg, TYPES)
    if not cfg.runs:
        raise LabError("runs=[...]: name folders that python -m lab.train +experiment=vae wrote, e.g. [results/vae]")
    for run in cfg.runs:
        check_run(run)
    if cfg.count < 1:
        raise LabError(f"count={cfg.count}: use at least 1")


@torch.no_grad()
def there_and_back(autoencoder: Autoencoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled latents (B, C, h, w) of images (B, 3, H, W), and what they decode to, on the CPU."""
    latents = autoencoder.encode(images.to(next(autoencoder.parameters()).device))
    return latents.cpu(), autoencoder.decode(latents).clamp(-1, 1).cpu()


def measure(run: str, autoencoder: Autoencoder, images: ImageSet) -> Row:
    """A row over all of the set."""
    places, values = autoencoder.factor**2, autoencoder.latent_channels
    snaps = isinstance(autoencoder, AutoencoderVQ)
    bits = math.log2(len(autoencoder.codebook.usage)) if isinstance(autoencoder, AutoencoderVQ) else 16.0 * values
    return Row(
        run=run,
        kind="VQ" if snaps else "KL",
        factor=autoencoder.factor,
        latent_channels=values,
        fewer_numbers=3 * places / values,
        fewer_bits=24 * places / bits,
        parameters=sum(parameter.numel() for parameter in autoencoder.parameters()),
        **reconstruction(autoencoder, images),
    )


def sheet(autoencoder: Autoencoder, images: Tensor) -> Image.Image:
    """A row a picture: it, each channel of its latents as grey squares, what comes back."""
    latents, back = there_and_back(autoencoder, images)
    scale = latents.std(dim=(0, 2, 3), keepdim=True) * SPREAD
    shades = ((latents - latents.mean(dim=(0, 2, 3), keepdim=True)) / scale).clamp(-1, 1)
    channels = shades.repeat_interleave(autoencoder.factor, 2).repeat_interleave(autoencoder.factor, 3)
    tiles = [
        tile
        for image, parts, made in zip(images, channels, back, strict=True)
        for tile in (image, *(part.expand(3, -1, -1) for part in parts), made)
    ]
    columns = ["picture", *(f"channel {number}" for number in range(1, channels.shape[1] + 1)), "what comes back"]
    return grid(torch.stack(tiles), columns=len(columns), column_labels=columns)


@entry_point("vae_reconstructions", check)
def main(cfg: DictConfig) -> None:
    """Measure, and write a table, a sheet a run and a page."""
    folder, rows, sections = Path(cfg.out), [], []
    for number, run in enumerate(cfg.runs):
        autoencoder, images = load_autoencoder(run, cfg.device), pictures_of(run, "held_out", cfg.data)
        rows.append(measure(run, autoencoder, images))
        logger.info("%s", asdict(rows[-1]))
        some = torch.linspace(0, len(images) - 1, min(cfg.count, len(images))).long()
        path = folder / f"{number}_{Path(run).name}.png"
        save_image(sheet(autoencoder, images.view(some)), path, asdict(rows[-1]))
        row = rows[-1]
        text = f"{row.kind}, factor {row.factor}, {row.latent_channels} channels: {row.fewer_numbers:g} times fewer "
        text += f"numbers, {row.psnr:.1f} dB and SSIM {row.ssim:.3f} over {len(images)} held-out pictures."
        sections.append(Section(run, text, images=[(path, "pictures, channels of their latents, what comes back")]))
    write_whole(folder / "reconstructions.csv", lambda staged: staged.write_text(to_csv(rows)))
    command = command_line("experiments.vae_reconstructions", cfg)
    table = Section("Measured", table=[asdict(row) for row in rows], command=command)
    page(folder / "index.html", "What does an autoencoder keep?", [table, *sections])
    logger.info("open %s", folder / "index.html")


if __name__ == "__main__":
    main()
