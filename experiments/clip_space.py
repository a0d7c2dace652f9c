"""Where a CLIP puts a set's pictures and the names of their classes: the gap between both, and who is near whom."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lab.clip import Clip, clip_vectors
from lab.clip.captions import class_prompts
from lab.clip.retrieval import phrase_vectors
from lab.data import ImageSet

AT_A_TIME = 1024  # pictures whose neighbours are looked for together


@dataclass(frozen=True)
class Space:
    """N pictures and the names of the K classes that they are of, as vectors of unit norm."""

    pictures: Tensor  # (N, D)
    labels: Tensor  # (N,) int64, rows of names
    texts: Tensor  # (K, D)
    names: list[str]  # K


def space(clip: Clip, images: ImageSet, chosen: Tensor, cache_dir: str) -> Space:
    """The vectors of the chosen pictures (N,) and of their classes' names.

    The pictures' are of the whole set and kept in `cache_dir`; a name's is the mean over sentences that say it.
    """
    pictures = clip_vectors(clip, images, cache_dir, flips=False)[chosen, 0]
    present, labels = images.labels[chosen].unique(return_inverse=True)
    names = [images.class_names[label] for label in present.tolist()]
    return Space(pictures, labels, phrase_vectors(clip, [class_prompts(name) for name in names]), names)


def moved(found: Space, shift: Tensor) -> Space:
    """The space with its texts moved by `shift` (D,)."""
    return replace(found, texts=found.texts + shift)


def gap(found: Space) -> Tensor:
    """From the texts' mean to the pictures' (D,), over pairs of a picture and its class's name.

    The modality gap of Liang et al. 2022, "Mind the gap", whose size is this vector's norm.
    """
    return found.pictures.mean(dim=0) - found.texts[found.labels].mean(dim=0)


def spread(vectors: Tensor) -> float:
    """Root mean square distance of vectors (N, D) from their mean: what a gap is large or small beside."""
    return float((vectors - vectors.mean(dim=0)).square().sum(dim=1).mean().sqrt())


def purity(vectors: Tensor, labels: Tensor, k: int) -> Tensor:
    """Share (N,) of each vector's k nearest others, by cosine, that have its label; vectors (N, D) of unit norm."""
    shares = []
    for rows in torch.arange(len(vectors)).split(AT_A_TIME):
        cosines = vectors[rows] @ vectors.T
        cosines[torch.arange(len(rows)), rows] = -torch.inf  # none is its own neighbour
        nearest = cosines.topk(k, dim=1).indices
        shares.append((labels[nearest] == labels[rows, None]).double().mean(dim=1))
    return torch.cat(shares)


def purity_by_chance(labels: Tensor) -> float:
    """The mean purity that neighbours drawn at random would have."""
    counts = one_hot(labels).sum(dim=0)[labels]
    return float((counts - 1).float().mean() / (len(labels) - 1))


def around_names(found: Space, k: int) -> tuple[float, float]:
    """Of a name's k nearest others, names and pictures, the share that are pictures; of its k nearest pictures, the
    share that are of its class. Means over names, by distance, since texts that were moved have no unit norm.
    """
    to_pictures, to_names = torch.cdist(found.texts, found.pictures), torch.cdist(found.texts, found.texts)
    to_names.fill_diagonal_(torch.inf)
    nearest = torch.cat([to_pictures, to_names], dim=1).topk(k, dim=1, largest=False).indices
    own = found.labels[to_pictures.topk(k, dim=1, largest=False).indices] == torch.arange(len(found.texts))[:, None]
    return float((nearest < len(found.pictures)).double().mean()), float(own.double().mean())


def principal(vectors: Tensor) -> Tensor:
    """Coordinates (M, 2) on the two axes along which vectors (M, D) vary most, the first of unit variance."""
    centred = vectors - vectors.mean(dim=0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:2].T
    return flat / flat[:, 0].std().clamp(min=1e-12)


def lay_out(vectors: Tensor, perplexity: float, seed: int) -> Tensor:
    """Places (M, 2) where near vectors (M, D) lie near each other: t-SNE (van der Maaten and Hinton 2008).

    It starts from the two principal axes, which keeps what is far apart from being placed at random (Kobak and
    Berens 2019). Distances between groups on the map mean little, who is whose neighbour much.
    """
    from sklearn.manifold import TSNE  # type: ignore[import-untyped] # slow to import

    start = (1e-4 * principal(vectors)).numpy().astype(np.float32)
    places = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(vectors.numpy())
    return torch.from_numpy(places)
