"""Distances between sets whose distance is known."""

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from lab.errors import LabError
from lab.evaluation import density_coverage, fid, kid, precision_recall


def drawn(count: int, seed: int, mean: float = 0.0, std: float = 1.0, dim: int = 8) -> Tensor:
    return mean + std * torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def exactly(rows: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The rows changed so that their mean is `mean` and their covariance diag(std^2)."""
    centred = rows - rows.mean(dim=0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(centred.T.cov())).T
    return white * std + mean


def test_fid_is_the_closed_form_of_two_gaussians() -> None:
    """Dowson & Landau 1982: |m1 - m2|^2 + |s1 - s2|^2 for covariances that commute."""
    means = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([2.0, 1.0, 0.0])
    stds = torch.ones(3), torch.tensor([1.0, 2.0, 0.5])
    one, other = (exactly(drawn(500, i, dim=3).double(), means[i], stds[i]) for i in range(2))
    expected = float((means[0] - means[1]).square().sum() + (stds[0] - stds[1]).square().sum())
    assert fid(one, other) == pytest.approx(expected, rel=1e-6)
    assert fid(one, one) == pytest.approx(0, abs=1e-6)


def test_fid_of_the_same_distribution_falls_with_n() -> None:
    floors = [fid(drawn(n, 0), drawn(n, 1)) for n in (50, 200, 800)]
    assert floors[0] > 2 * floors[1] > 4 * floors[2] > 0


def test_kid_is_unbiased_at_small_n() -> None:
    found = [kid(drawn(40, 2 * i), drawn(40, 2 * i + 1))[0] for i in range(20)]
    mean, error = torch.tensor(found).mean(), torch.tensor(found).std() / 20**0.5
    assert abs(float(mean)) < 3 * float(error)
    assert fid(drawn(40, 0), drawn(40, 1)) > 1  # which is not


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all")
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_kid_is_that_of_torchmetrics_over_all_pictures(shift: float) -> None:
    """Which looks at subsets; one as large as both sides is all of them."""
    one, other = drawn(1500, 0), drawn(1500, 1, mean=shift)
    metric = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=1500)
    metric.update(one.double(), real=True)
    metric.update(other.double(), real=False)
    assert kid(one, other)[0] == pytest.approx(float(metric.compute()[0]), rel=1e-9)


class Given(nn.Module):
    """Features that are there already."""

    num_features = 8

    def forward(self, features: Tensor) -> Tensor:
        return features


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("real", "fake"), [(120, 120), (400, 100), (100, 400)])
def test_kid_varies_by_its_error(real: int, fake: int, shift: float) -> None:
    """Sets alike or not, sides of equal or other numbers."""
    found = [kid(drawn(real, 2 * i), drawn(fake, 2 * i + 1, mean=shift)) for i in range(120)]
    distances, errors = torch.tensor(found).unbind(dim=1)
    assert 0.85 < float(errors.square().mean().sqrt() / distances.std()) < 1.35


def test_precision_and_recall_of_constructed_overlaps() -> None:
    """Two far clusters are real: of the fakes half lie in the first, half elsewhere."""
    near, far, elsewhere = drawn(200, 0), drawn(200, 1, mean=50), drawn(100, 2, mean=-50)
    real, fake = torch.cat([near, far]), torch.cat([near[:100] + 1e-3, elsewhere])
    precision, recall = precision_recall(real, fake)
    assert precision == 0.5
    assert 0.3 < recall <= 0.5
    assert precision_recall(real, real + 1e-6) == (1.0, 1.0)


def test_density_and_coverage_of_constructed_overlaps() -> None:
    near, far = drawn(200, 0), drawn(200, 1, mean=50)
    real = torch.cat([near, far])
    density, coverage = density_coverage(real, near + 1e-6)
    assert density == pytest.approx(1, abs=0.25) and coverage == pytest.approx(0.5, abs=0.01)
    assert density_coverage(real, drawn(50, 2, mean=-50)) == (0.0, 0.0)


def test_coverage_of_what_is_alike_grows_with_the_number_of_samples() -> None:
    for count in (200, 800):
        _, coverage = density_coverage(drawn(800, 0), drawn(count, 1))
        assert coverage == pytest.approx(1 - (800 / (800 + count)) ** 5, abs=0.04)


def test_too_few_pictures_are_refused() -> None:
    for metric in (fid, kid, precision_recall, density_coverage):
        with pytest.raises(LabError, match="1 real and 9 generated pictures: use at least"):
            metric(drawn(1, 0), drawn(9, 1))
    with pytest.raises(ValueError, match="different spaces"):
        fid(drawn(9, 0), drawn(9, 0, dim=4))
