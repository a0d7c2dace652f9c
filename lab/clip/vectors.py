"""CLIP vectors of a whole image set, computed once for each model and set, and their statistics."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lab.clip.captions import CaptionMaker
from lab.clip.model import Clip
from lab.data import ImageSet
from lab.data.tensors import cached
from lab.seeding import generator

log = logging.getLogger(__name__)

BATCH = 128  # images encoded together
CAPTIONS = 2048  # at most as many go into the mean of the captions' vectors


@dataclass(frozen=True)
class VectorStats:
    """Where the vectors of a set lie, for standardising them and for shifting text vectors onto them."""

    mean: Tensor  # (dim,) of the image vectors
    std: Tensor  # (), root of the image vectors' mean variance
    text_mean: Tensor  # (dim,) of the vectors of the images' captions


def clip_vectors(clip: Clip, image_set: ImageSet, cache_dir: str | Path, flips: bool = True) -> Tensor:
    """(N, V, dim) float32 of unit norm: each image's centre crop and, with flips, its mirror image.

    Kept in `cache_dir`/clip; made anew for another model, preprocessing, set or size of its crops.
    Raises LabError naming the folder where it cannot be written.
    """
    folder, views = Path(cache_dir) / "clip", "mirrored" if flips else "centre"
    about = {
        "model": clip.name,
        "fingerprint": clip.fingerprint,
        "preprocessing": clip.preprocessing,
        "normalised": "true",
        "image_set": image_set.fingerprint,
        "size": str(image_set.image_size),
        "views": views,
    }
    of_set = f"{image_set.name}-{image_set.fingerprint}-{image_set.image_size}"  # of which the centre is seen
    path = folder / f"{of_set}-{clip.fingerprint}-{views}.safetensors"
    shape = (len(image_set), 2 if flips else 1, clip.dim)
    return cached(path, about, shape, lambda: encode_set(clip, image_set, flips))


def encode_set(clip: Clip, image_set: ImageSet, flips: bool = False) -> Tensor:
    """(N, V, dim) vectors of all images, on the CPU, without a cache."""
    rows = []
    for indices in torch.arange(len(image_set)).split(BATCH):
        images = image_set.view(indices)
        views = [images, images.flip(-1)] if flips else [images]
        rows.append(torch.stack([clip.encode_images(view).cpu() for view in views], dim=1))
        log.debug("%s: %d of %d images encoded", image_set.name, int(indices[-1]) + 1, len(image_set))
    return torch.cat(rows)


def vector_stats(clip: Clip, image_set: ImageSet, vectors: Tensor) -> VectorStats:
    """Statistics of (N, V, dim) vectors, and the mean vector of captions drawn for (some of) the images."""
    flat = vectors.flatten(0, 1)
    some = torch.randperm(len(image_set), generator=generator(0, "stats"))[:CAPTIONS]
    texts = CaptionMaker(image_set).draw(some, generator(0, "stats captions")).texts
    text = torch.cat([clip.encode_text(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])
    std = flat.var(dim=0, unbiased=False).mean().sqrt()
    return VectorStats(flat.mean(dim=0), std, text.mean(dim=0).to(flat))
