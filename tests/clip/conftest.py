"""Image sets of a few coloured discs, and a tiny open_clip model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from lab.clip import Clip
from lab.data import ImageSet

RGB = {
    "red": (220, 20, 30),
    "orange": (255, 140, 10),
    "yellow": (250, 215, 40),
    "green": (60, 160, 60),
    "blue": (50, 90, 220),
    "purple": (120, 40, 160),
    "pink": (250, 130, 180),
    "white": (250, 250, 250),
    "black": (8, 8, 8),
    "brown": (110, 65, 30),
    "grey": (125, 125, 125),
}
LEAF = (60, 90, 45)
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def paint_disc(
    colour: Sequence[int],
    background: Sequence[int] = LEAF,
    size: int = 72,
    radius: float = 0.33,
    centre: tuple[float, float] = (0.5, 0.5),
) -> Tensor:
    """(size, size, 3) uint8: a disc, its radius and centre in picture widths."""
    place = (torch.arange(size) + 0.5) / size
    inside = (place[:, None] - centre[1]) ** 2 + (place[None] - centre[0]) ** 2 < radius**2
    return torch.where(inside[..., None], torch.tensor(colour), torch.tensor(background)).to(torch.uint8)


@pytest.fixture
def disc() -> Callable[..., Tensor]:
    return paint_disc


@pytest.fixture
def rgb() -> dict[str, tuple[int, int, int]]:
    return RGB


@pytest.fixture
def make_set() -> Callable[..., ImageSet]:
    """Image sets whose image i is a disc of colours[i], of class labels[i]."""

    def make(
        colours: Sequence[str],
        labels: Sequence[int] = (),
        class_names: Sequence[str] = (),
        captions: Sequence[str] = (),
        factors: Sequence[dict[str, Any]] = (),
        size: int = 32,
        seed: int = 0,
    ) -> ImageSet:
        noise = torch.randint(-8, 9, (len(colours), 36, 36, 3), generator=torch.Generator().manual_seed(seed))
        discs = torch.stack([paint_disc(RGB[colour], size=36) for colour in colours])
        return ImageSet(
            name="discs",
            pixels=(discs + noise).clamp(0, 255).to(torch.uint8),
            labels=torch.tensor(labels or [-1] * len(colours)),
            class_names=tuple(class_names),
            image_size=size,
            captions=tuple(captions),
            factors=tuple(factors),
            fingerprint=f"{len(colours)}-{seed}",
        )

    return make


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """The name of a model that open_clip builds in milliseconds."""
    (tmp_path / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    return "tiny-clip"


@pytest.fixture
def tiny_network(tiny: str) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = open_clip.create_model(tiny)
    return network


@pytest.fixture
def tiny_clip(tiny: str, tiny_network: nn.Module) -> Clip:
    return Clip(tiny_network, open_clip.get_tokenizer(tiny), tiny, TINY)
