"""From the network's floats to pixels, and pixels large enough to look at."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

NOT_FINITE = (255, 0, 255)  # no flower is pure magenta: a diverged sample is seen, not hidden

Images = Tensor | Sequence[Image.Image]


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(B, 3, H, W) in [-1, 1], any float dtype and device -> (B, H, W, 3) uint8.

    Values outside the range are clamped; a pixel with a NaN or infinite channel becomes magenta.

    Raises:
        ValueError: the tensor is not (B, 3, H, W).
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}")
    values = images.detach().to("cpu", torch.float32).permute(0, 2, 3, 1)
    finite = values.isfinite().all(dim=-1, keepdim=True)  # (B, H, W, 1)
    levels = ((values.nan_to_num() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return torch.where(finite, levels, torch.tensor(NOT_FINITE, dtype=torch.uint8)).numpy()


def from_uint8(pixels: Tensor) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) float32 in [-1, 1]: what `to_uint8` made bytes of, up to rounding."""
    return pixels.movedim(-1, -3).float() / 127.5 - 1


def to_pil(images: Images) -> list[Image.Image]:
    """One RGB picture per image of a (B, 3, H, W) tensor in [-1, 1]; PIL pictures are only made RGB."""
    if isinstance(images, Tensor):
        return [Image.fromarray(pixels) for pixels in to_uint8(images)]
    return [image.convert("RGB") for image in images]


def fit_cell(image: Image.Image, cell: int) -> Image.Image:
    """Bring the longer side to at most `cell` px: enlarged by a whole factor, or reduced where it is larger.

    Enlarging repeats pixels, so that what the model drew is what is seen; only reducing resamples (Lanczos).
    """
    longer = max(image.size)
    if longer <= cell:
        factor = cell // longer
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    width, height = (max(1, round(side * cell / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
