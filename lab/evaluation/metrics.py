"""Distances between two sets of pictures, by their features (N, D): where torchmetrics has them, its own.

Those must not synchronise: one process has all features, and the others have gone.
"""

import warnings

import torch
from torch import Tensor, nn

from lab.errors import LabError

AT_A_TIME = 1024  # rows of distances held together


class _Given(nn.Module):
    """What torchmetrics takes for the network, where features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(real: Tensor, fake: Tensor) -> float:
    """Frechet distance of the Gaussians through both sets (Heusel et al. 2017), which falls with n: state it.

    Raises LabError for fewer than two pictures on a side.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # slow to import

    check_count(real, fake, 2)
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]), sync_on_compute=False)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return float(metric.compute())


def kid(real: Tensor, fake: Tensor, seed: int = 0, subsets: int = 100, subset_size: int = 500) -> tuple[float, float]:
    """Kernel distance (Binkowski et al. 2018), unbiased at any n: mean over random subsets, and its standard error.

    Subsets are at most half of a side, and overlap, so that the error is a little too small. Raises LabError for fewer
    than three pictures on a side.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    check_count(real, fake, 3)
    size = min(subset_size, (min(len(real), len(fake)) + 1) // 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it keeps all features, which are there anyway
        metric = KernelInceptionDistance(
            feature=_Given(real.shape[1]), subsets=subsets, subset_size=size, sync_on_compute=False
        )
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, std = metric.compute()
    # What a mean over all pictures would vary by: subsets are a part of them.
    return float(mean), float(std) * (size / min(len(real), len(fake))) ** 0.5


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Kynkaanniemi et al. 2019: shares of fakes within the real set's reach, and of reals within that of the fakes.

    The reach of a set are balls about its points, each as wide as its k-th nearest neighbour in the set is away.
    Raises LabError where a side has not more than k pictures.
    """
    check_count(real, fake, k + 1)
    return _covered(fake, real, _radii(real, k)), _covered(real, fake, _radii(fake, k))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Naeem et al. 2020: how many real balls hold a fake, by k, on average; the share of real balls that hold a fake.

    Both tend to 1 where the sets are alike (coverage to 1 - 2^-k). Raises LabError where a side has too few pictures.
    """
    check_count(real, fake, k + 1)
    radii = _radii(real, k)
    held = torch.zeros(())
    found = torch.zeros(len(real), dtype=torch.bool)
    for part in fake.split(AT_A_TIME):
        inside = torch.cdist(part.double(), real.double()) <= radii
        held = held + inside.sum()
        found |= inside.any(dim=0)
    return float(held) / (k * len(fake)), float(found.float().mean())


def check_count(real: Tensor, fake: Tensor, least: int) -> None:
    """LabError where a side has fewer than `least` rows, or the sides are of different spaces."""
    if min(len(real), len(fake)) < least:
        raise LabError(f"{len(real)} real and {len(fake)} generated pictures: use at least {least} of each")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"features of {real.shape[1]} and {fake.shape[1]} numbers are of different spaces")


def _radii(points: Tensor, k: int) -> Tensor:
    """(N,) distance of each point to its k-th nearest neighbour."""
    own = points.double()
    rows = [torch.cdist(part, own).kthvalue(k + 1, dim=1).values for part in own.split(AT_A_TIME)]  # itself is at 0
    return torch.cat(rows)


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Share of points within any of the balls."""
    inside = [(torch.cdist(part.double(), centres.double()) <= radii).any(dim=1) for part in points.split(AT_A_TIME)]
    return float(torch.cat(inside).float().mean())
