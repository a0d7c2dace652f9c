"""Pictures through an autoencoder and back: how good they are then, and a sheet to see it by."""

from collections.abc import Iterable, Iterator

import torch
from PIL import Image
from torch import Tensor

from lab.autoencoders import Autoencoder
from lab.data import ImageSet
from lab.quality import psnr, ssim
from lab.render import grid

AT_A_TIME = 64  # images encoded together
COLUMNS = 8  # pictures in a row of a sheet


def views(images: ImageSet) -> Iterator[Tensor]:
    """All pictures of a set, (B, 3, H, W) at a time."""
    return (images.view(indices) for indices in torch.arange(len(images)).split(AT_A_TIME))


@torch.no_grad()
def there_and_back(autoencoder: Autoencoder, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch of pictures (B, 3, H, W), and what the means of their latents decode to."""
    for batch in batches:
        given = batch.to(next(autoencoder.parameters()).device)
        yield given, autoencoder.decode(autoencoder.encode(given)).clamp(-1, 1)


def reconstruction(autoencoder: Autoencoder, images: ImageSet) -> dict[str, float]:
    """{"psnr", "ssim"} of pictures and what the means of their latents decode to: dB, and 1 for no difference."""
    numbers = []
    for given, back in there_and_back(autoencoder, views(images)):
        numbers.append(torch.stack([psnr(given, back), ssim(given, back)]).cpu())
    quality = torch.cat(numbers, dim=1).mean(dim=1).tolist()
    return {"psnr": quality[0], "ssim": quality[1]}


def pairs(given: Tensor, back: Tensor, title: str) -> Image.Image:
    """A sheet of pictures (B, 3, H, W), each row above what came back of it (B, 3, H, W)."""
    rows = [part for pair in zip(given.split(COLUMNS), back.split(COLUMNS), strict=True) for part in pair]
    return grid(torch.cat(rows), columns=min(COLUMNS, len(given)), title=title)
