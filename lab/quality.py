"""How close images are to each other, and what can be told of one from its pixels alone."""

import math

import torch
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


def saturation(images: Tensor) -> Tensor:
    """Mean saturation (B,) of images (B, 3, H, W) in [-1, 1]: the S of HSV, 0 grey to 1 pure, black counts as 0."""
    levels = (images + 1) / 2
    largest, smallest = levels.amax(dim=1), levels.amin(dim=1)
    return ((largest - smallest) / largest.clamp(min=1e-3)).flatten(1).mean(1)


def edge_energy(images: Tensor) -> Tensor:
    """Root mean square (B,) of the luminance's differences between neighbouring pixels, images (B, 3, H, W)."""
    weights = images.new_tensor([0.2126, 0.7152, 0.0722])  # Rec. 709
    luminance = torch.einsum("bchw,c->bhw", images, weights)
    across, down = luminance.diff(dim=2).square(), luminance.diff(dim=1).square()
    return (across.flatten(1).mean(1) + down.flatten(1).mean(1)).sqrt()


def diversity(images: Tensor) -> Tensor:
    """Mean distance (G,) between the pictures of a group (G, N, ...), RMS of their numbers; NaN for one."""
    groups, count = images.shape[:2]
    flat = images.flatten(2)
    distances = torch.cdist(flat, flat) / math.sqrt(flat.shape[2])  # (G, N, N), 0 on the diagonal
    if count == 1:
        return torch.full((groups,), math.nan)
    return distances.sum(dim=(1, 2)) / (count * (count - 1))
