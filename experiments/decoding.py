"""How much of preparing pictures is JPEG decoding; a part of experiments.benchmark."""

import tempfile
from pathlib import Path

import torch.nn.functional as F
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from experiments.timing import Row, race
from lab.data import Petals, open_image
from lab.data.images import decode


def decode_rows(cfg: DictConfig) -> list[Row]:
    """Preparing pictures against JPEG decoding alone, both on one thread, of files as large as Oxford 102's."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = Petals(cfg.data.image_size, size=48, held_out_size=8, cache_dir=folder).load("train")
        paths = []
        for number, pixels in enumerate(pictures.pixels):
            paths.append(Path(folder) / f"{number}.jpg")
            large = F.interpolate(pixels.permute(2, 0, 1)[None].float(), size=(500, 625), mode="bicubic")
            open_array(large).save(paths[-1], quality=90)
        side = round(cfg.data.image_size * 1.125)

        def prepare() -> None:
            list(decode(paths, side, workers=1))

        def decode_only() -> None:
            for path in paths:
                open_image(path, min_side=side)

        return [race("pictures prepared", prepare, "JPEG decoding alone", decode_only, len(paths), cfg.rounds)]


def open_array(image: Tensor) -> Image.Image:
    """(1, 3, H, W) in 0..255 as a PIL image."""
    return Image.fromarray(image[0].clamp(0, 255).byte().permute(1, 2, 0).numpy())
