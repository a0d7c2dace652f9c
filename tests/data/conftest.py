from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lab.data import ImageSet


@pytest.fixture
def make_set() -> Callable[..., ImageSet]:
    """A set of `count` random pictures for crops of 8 px, `margin` pixels larger than that."""

    def make(count: int = 10, margin: int = 3, labels: list[int] | None = None) -> ImageSet:
        random = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (count, 8 + margin, 8 + margin, 3), dtype=torch.uint8, generator=random)
        classes = torch.full((count,), -1) if labels is None else torch.tensor(labels)
        names = () if labels is None else tuple(f"class {i}" for i in range(max(labels) + 1))
        return ImageSet("random", pixels, classes, names, 8, (), (), "0" * 16)

    return make


@pytest.fixture
def picture() -> Image.Image:
    """A smooth picture, 40 by 30, no two quarters alike: red grows to the right, green downwards."""
    y, x = np.mgrid[0:30, 0:40]
    planes = np.stack([x * 255 / 39, y * 255 / 29, np.full_like(x, 90)], axis=-1)
    return Image.fromarray(planes.round().astype(np.uint8))


@pytest.fixture
def pictures(tmp_path: Path, picture: Image.Image) -> Path:
    """A folder of two classes: five pictures of roses and three of tulips, one in a folder of its own."""
    root = tmp_path / "pictures"
    for name in (
        "rose/1.jpg",
        "rose/2.png",
        "rose/3.jpg",
        "rose/4.jpg",
        "rose/5.jpg",
        "tulip/1.png",
        "tulip/2.jpg",
        "tulip/late/3.jpg",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(root / name)
    return root
