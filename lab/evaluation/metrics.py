"""Distances between two sets of pictures, by their features (N, D)."""

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
    # One process has all features, and the others have gone: it must not wait for theirs.
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]), sync_on_compute=False)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return float(metric.compute())


def kid(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """Kernel distance (Binkowski et al. 2018, eq. 4), unbiased at any n, over all pairs; and its standard error.

    The error is that of a U-statistic to second order: where the sets are alike the first order vanishes, and where
    sides differ in number both count. Raises LabError for fewer than three pictures on a side.
    """
    check_count(real, fake, 3)
    x, y = real.double(), fake.double()
    of_real, _, square_real = _kernel_sums(x, x, itself=True)
    of_fake, _, square_fake = _kernel_sums(y, y, itself=True)
    real_to_fake, fake_to_real, square_both = _kernel_sums(x, y)
    m, n = len(x), len(y)
    a, b, c, d = of_real / (m - 1), real_to_fake / n, of_fake / (n - 1), fake_to_real / m
    distance = a.mean() - 2 * b.mean() + c.mean()
    plain = 4 * ((a - b).var() / m + (c - d).var() / n)  # has the second order twice
    within_real = (square_real / (m * (m - 1)) - 2 * a.square().mean() + a.mean() ** 2) / (m * (m - 1))
    within_fake = (square_fake / (n * (n - 1)) - 2 * c.square().mean() + c.mean() ** 2) / (n * (n - 1))
    between = (square_both / (m * n) - b.square().mean() - d.square().mean() + b.mean() ** 2) / (m * n)
    second = 2 * (within_real + within_fake + 2 * between)
    return float(distance), float(torch.maximum(plain - second, second).clamp(min=0).sqrt())


def _kernel_sums(one: Tensor, other: Tensor, itself: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over rows (N,), over columns (M,) and of all squares () of (x y / D + 1)^3, without the diagonal of one."""
    rows, columns, squares = [], torch.zeros(len(other), dtype=one.dtype), torch.zeros((), dtype=one.dtype)
    for start in range(0, len(one), AT_A_TIME):
        kernel = (one[start : start + AT_A_TIME] @ other.T / one.shape[1] + 1) ** 3
        if itself:
            kernel.diagonal(start).zero_()
        rows.append(kernel.sum(dim=1))
        columns += kernel.sum(dim=0)
        squares += kernel.square().sum()
    return torch.cat(rows), columns, squares


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Kynkaanniemi et al. 2019: shares of fakes within the real set's reach, and of reals within that of the fakes.

    The reach of a set are balls about its points, each as wide as its k-th nearest neighbour in the set is away.
    Raises LabError where a side has not more than k pictures.
    """
    check_count(real, fake, k + 1)
    return _covered(fake, real, _radii(real, k)), _covered(real, fake, _radii(fake, k))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Naeem et al. 2020: how many real balls hold a fake, by k, on average; the share of real balls that hold a fake.

    Where N real and M generated pictures are alike, density is 1 and coverage 1 - (N / (N + M))^k: it grows with M, and
    compares for equal numbers alone. Raises LabError where a side has too few pictures.
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
