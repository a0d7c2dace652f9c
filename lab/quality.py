"""How close images are to each other."""

import math

from torch import Tensor


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of images (B, 3, H, W) in [-1, 1], whose peak is 2."""
    error = (one - other).square().flatten(1).mean(1)
    return 20 * math.log10(2) - 10 * error.log10()


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity (B,) of images (B, 3, H, W) in [-1, 1], 11 px at least (Wang et al. 2004)."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    first, second = ((images.float() + 1) / 2 for images in (one, other))
    similarity = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    assert isinstance(similarity, Tensor)
    return similarity.reshape(-1)
