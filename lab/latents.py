"""A whole set in an autoencoder's latent space: moments cached once, their statistics, and batches of them."""

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor

from lab.autoencoders import Autoencoder
from lab.data import Batch, BatchStream, ImageSet
from lab.data.tensors import cached
from lab.errors import LabError
from lab.seeding import generator

logger = logging.getLogger(__name__)
AT_A_TIME = 64  # images encoded together
STATISTICS = ("latent_mean", "latent_std")
SMALLEST = 1e-6  # a channel's standard deviation
CHECKED, TOLERANCE = 2048, 0.1  # latents drawn to see that their squares are what was summed up, and how nearly


def fingerprint(autoencoder: Autoencoder) -> str:
    """16 hex digits, SHA-256 of the weights; statistics, which belong to a set, are left out."""
    digest = hashlib.sha256()
    for key, tensor in sorted(autoencoder.state_dict().items()):
        if key not in STATISTICS:
            digest.update(key.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


@torch.no_grad()
def encode_set(autoencoder: Autoencoder, images: ImageSet, crops: int, bf16: bool = False) -> Tensor:
    """Moments (N, crops, 2, M, h, w) float16 on the CPU of each image: its crops, each as it is and mirrored.

    The first crop is the central one, the others lie at random, the same ones each time.
    """
    device = next(autoencoder.parameters()).device
    autoencoder.eval()
    rows = []
    for indices in torch.arange(len(images)).split(AT_A_TIME):
        views = []
        for crop in range(crops):
            draw = generator(0, "crop", crop, int(indices[0])) if crop else None
            view = images.crop(indices, images.place(len(indices), draw, flip=False)).to(device)
            views += [view, view.flip(-1)]
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            encoded = [autoencoder.moments(view) for view in views]
        rows.append(torch.stack(encoded, dim=1).unflatten(1, (crops, 2)).half().cpu())
    return torch.cat(rows)


def set_moments(
    autoencoder: Autoencoder, images: ImageSet, crops: int, cache_dir: str | Path, bf16: bool = False
) -> Tensor:
    """`encode_set`, kept in `cache_dir`/latents for this autoencoder and set.

    One crop is all that a set without a margin has. Raises LabError for crops below 1, and where the folder cannot be
    written.
    """
    if crops < 1:
        raise LabError(f"latents.crops={crops}: use at least 1")
    crops = crops if images.margin else 1
    with torch.no_grad():
        one = autoencoder.eval().moments(images.view(torch.tensor([0])).to(next(autoencoder.parameters()).device))
    shape = (len(images), crops, 2, *one.shape[1:])
    key = fingerprint(autoencoder)
    about = {"autoencoder": key, "image_set": images.fingerprint, "size": str(images.image_size), "crops": str(crops)}
    about["precision"] = "bf16" if bf16 else "fp32"
    name = f"{images.name}-{images.fingerprint}-{images.image_size}-{key}-{crops}-{about['precision']}.safetensors"
    return cached(
        Path(cache_dir) / "latents" / name, about, shape, lambda: encode_set(autoencoder, images, crops, bf16)
    )


@torch.no_grad()
def take_statistics(autoencoder: Autoencoder, moments: Tensor) -> None:
    """Set `latent_mean` and `latent_std` (C,) to those of latents drawn from moments (N, V, 2, M, h, w).

    What a posterior spreads counts, so that drawn latents have unit variance; asserted on some that are drawn.
    Raises LabError where a channel is constant or not finite.
    """
    flat = moments.flatten(0, 2)
    sums = torch.stack([_sums(autoencoder, part.float()) for part in flat.split(AT_A_TIME)]).sum(dim=0)
    mean, square = sums / (len(flat) * flat.shape[2] * flat.shape[3])
    std = (square - mean.square()).clamp(min=0).sqrt()
    bad = (~(std > SMALLEST)).nonzero().flatten().tolist()
    if bad:
        raise LabError(f"channel {bad[0]} of the latents does not vary over the set: train the autoencoder anew")
    autoencoder.latent_mean.copy_(mean)
    autoencoder.latent_std.copy_(std)
    draw = generator(0, "statistics")
    some = flat[torch.randint(len(flat), (CHECKED,), generator=draw)].float()
    z = autoencoder.draw(some, torch.randn(len(some), len(mean), *some.shape[2:], generator=draw))
    drawn, expected = z.double().square().sum(dim=(0, 2, 3)), _sums(autoencoder, some)[1]
    assert bool(((drawn / expected - 1).abs() < TOLERANCE).all()), f"latents off by {drawn / expected}"


def _sums(autoencoder: Autoencoder, moments: Tensor) -> Tensor:
    """Sums (2, C) of latents and of their squares, in expectation, over moments (B, M, h, w)."""
    z = autoencoder.draw(moments)
    deviation = autoencoder.draw(moments, torch.ones_like(z)) - z if autoencoder.stochastic else torch.zeros_like(z)
    return torch.stack([z.double().sum(dim=(0, 2, 3)), (z.double().square() + deviation.square()).sum(dim=(0, 2, 3))])


class LatentStream(BatchStream):
    """Batches of moments in place of images: a crop and a side of each are chosen afresh every step.

    moments   (N, crops, 2, M, h, w), as `set_moments` gives them
    The rest as in BatchStream.
    """

    of_moments = True

    def __init__(
        self,
        moments: Tensor,
        image_set: ImageSet,
        batch_size: int,
        seed: int,
        class_balanced: bool = False,
        flip: bool = True,
    ) -> None:
        super().__init__(image_set, batch_size, seed, class_balanced, flip)
        self.moments = moments

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The slice of the step's batch that belongs to one rank; images are moments (b, M, h, w) float32."""
        mine = self.share(rank, world)
        indices = self.indices(step)[mine]
        draw = generator(self.seed, "augment", step)
        crops = torch.randint(self.moments.shape[1], (self.batch_size,), generator=draw)[mine]
        sides = torch.randint(2, (self.batch_size,), generator=draw)[mine] * self.flip
        return Batch(self.moments[indices, crops, sides].float(), self.image_set.labels[indices], indices)
