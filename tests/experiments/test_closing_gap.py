"""Texts that move to the pictures, and what is measured on the way."""

from pathlib import Path

import imageio.v3 as imageio
import pytest
import torch
from torch.nn.functional import normalize

from experiments.clip_space import Space, gap, moved
from experiments.closing_gap import SHARES, film, measure, side_view


@pytest.fixture
def found() -> Space:
    """Two classes of ten pictures around (1, 0, ...) and their names around (0, 0, 1, ...)."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(20) % 2
    pictures = torch.zeros(20, 6)
    pictures[:, 0] = 1
    pictures[:, 1] = 2.0 * labels - 1
    texts = torch.zeros(2, 6)
    texts[:, 2] = 1
    texts[:, 1] = torch.tensor([-0.5, 0.5])
    pictures += 0.05 * torch.randn(20, 6, generator=draw)
    return Space(normalize(pictures, dim=1), labels, normalize(texts, dim=1), ["one", "other"])


def test_a_share_of_the_gap_is_left(found: Space) -> None:
    whole = float(gap(found).norm())
    assert whole > 0.5
    assert float(gap(moved(found, 0.25 * gap(found))).norm()) == pytest.approx(0.75 * whole)
    assert float(gap(moved(found, gap(found))).norm()) == pytest.approx(0, abs=1e-6)


def test_measures_follow_the_way(found: Space) -> None:
    measured = measure(found, k=5)
    assert all(len(numbers) == len(SHARES) for numbers in measured.values())
    assert measured["left"][0] > measured["left"][10] > measured["left"][20] == pytest.approx(0, abs=1e-6)
    assert measured["mingled"][0] < 1 == measured["mingled"][20]
    assert measured["met"][20] == 1


def test_the_view_is_along_the_gap_and_across_it(found: Space) -> None:
    axes, middle = side_view(found)
    torch.testing.assert_close(axes @ axes.T, torch.eye(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(axes[0] * gap(found).norm(), gap(found))
    across = (found.pictures - middle) @ axes[1]
    assert float((across[found.labels == 0].mean() - across[found.labels == 1].mean()).abs()) > 1  # the classes


@pytest.mark.slow
def test_the_video_has_a_frame_a_share(found: Space, tmp_path: Path) -> None:
    scrub = film(found, [0] * 20, measure(found, 5), tmp_path / "way.mp4", {"seed": 0}, 8)
    video = imageio.imread(tmp_path / "way.mp4", index=None)
    assert video.shape[0] == len(SHARES) == len(scrub.labels) and video.shape[2:0:-1] == scrub.size
    inside = (slice(60, 500), slice(80, 690))  # of the view's axes, without its title
    assert int((video[0][inside].astype(int) - video[-1][inside]).__abs__().max()) > 100  # the diamonds have moved
