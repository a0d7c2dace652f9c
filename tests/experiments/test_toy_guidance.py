"""Closed forms against integrals, what guidance does to points, and the command."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments import toy_guidance
from experiments.mixture import Mixture
from experiments.plane import Plane
from experiments.sweeps import nearest
from experiments.toy_guidance import draw, measure
from lab.diffusion import NoiseSchedule
from lab.render import read_provenance
from lab.render.curves import COLOURS

Command = Callable[..., tuple[int, str]]
MEANS = [[[0.0, 1.2]], [[-1.1, -0.5], [-1.9, 0.7]], [[1.1, -0.5], [0.0, -1.4]]]
STD = 0.6


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return Mixture(MEANS, STD)


def noisy(count: int) -> Tensor:
    return 1.5 * torch.randn(count, 2, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def moments(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (2,) and covariance (2, 2) of components of these weights (K,)."""
    places = torch.tensor([place for places in MEANS for place in places], dtype=torch.float64)
    mean = weights @ places
    away = places - mean
    return mean, STD**2 * torch.eye(2, dtype=torch.float64) + away.T @ (weights[:, None] * away)


def test_the_denoiser_of_one_gaussian_weighs_by_precision() -> None:
    place, std, schedule, x = torch.tensor([0.7, -1.3], dtype=torch.float64), 0.4, NoiseSchedule(), noisy(50)
    for t in (0, 200, 600, 999):
        alpha, sigma = schedule.level(t)
        of_x, of_prior = alpha**2 / sigma**2, 1 / std**2
        expected = (of_x * x.flatten(1) / alpha + of_prior * place) / (of_x + of_prior)
        levels = schedule.alpha_sigma(torch.full((50,), t), x)
        found = Mixture([[place.tolist()]], std).posterior_mean(x, *levels, torch.ones(50, 1, dtype=torch.float64))
        torch.testing.assert_close(found.flatten(1), expected)


@pytest.mark.parametrize("t", [150, 500, 850])
def test_the_posterior_mean_is_the_integral(mixture: Mixture, t: int) -> None:
    line = torch.linspace(-7, 7, 401, dtype=torch.float64)
    x0 = torch.cartesian_prod(line, line)
    x, (alpha, sigma) = noisy(5), NoiseSchedule().level(t)
    levels = [torch.full((5, 1, 1, 1), level, dtype=torch.float64) for level in (alpha, sigma)]
    weights = torch.stack([*mixture.weights, mixture.marginal, mixture.marginal])  # of each point its own
    found = mixture.posterior_mean(x, *levels, weights)
    for place, mean, row in zip(x.flatten(1), found.flatten(1), weights, strict=True):
        prior = sum(
            w * (-(x0 - m).square().sum(1) / (2 * STD**2)).exp() for w, m in zip(row, mixture.means, strict=True)
        )
        joint = prior * (-(place - alpha * x0).square().sum(1) / (2 * sigma**2)).exp()
        torch.testing.assert_close(mean, (joint[:, None] * x0).sum(0) / joint.sum(), atol=1e-6, rtol=0)


def test_densities_integrate_to_one(mixture: Mixture) -> None:
    line = torch.linspace(-6, 6, 241, dtype=torch.float64)
    places = torch.cartesian_prod(line, line)
    for weights in (*mixture.weights, mixture.marginal):
        assert float(mixture.log_density(places, weights).exp().sum()) * 0.05**2 == pytest.approx(1, abs=1e-6)


def test_the_class_posterior_of_two_gaussians_is_logistic() -> None:
    two = Mixture([[[-1.0, 0.0]], [[1.0, 0.0]]], 0.8)
    points = noisy(20).flatten(1)
    torch.testing.assert_close(two.class_posterior(points)[:, 1], torch.sigmoid(2 * points[:, 0] / 0.8**2))


def test_near_a_component_are_95_percent_of_its_points(mixture: Mixture) -> None:
    points = torch.tensor(MEANS[0][0]) + STD * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    first, second = (torch.full((20_000,), label) for label in (0, 1))
    assert float(mixture.inside(points.double(), first).double().mean()) == pytest.approx(0.95, abs=0.006)
    assert float(mixture.inside(points.double(), second).double().mean()) < 0.3


def test_unguided_points_have_the_moments_of_their_class_and_of_all(mixture: Mixture) -> None:
    points = draw(mixture, [0.0, 1.0], 500, 120, 0)
    everything = points[0].flatten(0, 1)
    for found, weights in [(everything, mixture.marginal), *zip(points[1], mixture.weights, strict=True)]:
        mean, covariance = moments(weights)
        torch.testing.assert_close(found.mean(0), mean, atol=0.09, rtol=0)
        torch.testing.assert_close(found.T.cov(), covariance, atol=0.11, rtol=0)


def test_guidance_makes_points_surer_and_closer_and_drives_them_out(mixture: Mixture) -> None:
    told = measure(mixture, draw(mixture, [-1.0, 0.0, 1.0, 3.0, 10.0], 60, 60, 1))
    for name in ("sure", "posterior"):
        assert told[name] == sorted(told[name])
        assert told[name][0] < 0.2 and told[name][3] > 0.95
    assert told["spread"] == sorted(told["spread"], reverse=True)
    assert told["distance"][1:] == sorted(told["distance"][1:])
    assert told["inside"][2] > 0.9 and told["inside"][4] < 0.2


def test_the_batch_of_all_scales_is_a_loop_over_them_from_the_same_noise(mixture: Mixture) -> None:
    scales = [-2.0, 1.0, 4.0]
    together = draw(mixture, scales, 5, 8, 3)
    assert together.shape == (3, 3, 5, 2)
    for scale, points in zip(scales, together, strict=True):
        torch.testing.assert_close(draw(mixture, [scale], 5, 8, 3)[0], points)
    assert not torch.allclose(draw(mixture, [1.0], 5, 8, 4)[0], together[1])


def test_measures_of_points_that_are_placed() -> None:
    two = Mixture([[[-2.0, 0.0]], [[2.0, 0.0]]], 0.5)
    right, swapped = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
    apart = torch.tensor([[0.0, 0.3], [0.0, -0.3]])  # std 0.3 in one direction, 0 in the other
    points = torch.stack([right[:, None] + 0 * apart, swapped[:, None] + apart]).double()
    told = measure(two, points)
    assert told["sure"] == [1, 0] and told["inside"] == [1, 0]
    assert told["distance"] == pytest.approx([4, 4])
    assert told["spread"] == pytest.approx([0, 0.3 / math.sqrt(2)])
    assert told["posterior"] == pytest.approx([1, 0], abs=1e-6)


def test_called_out_are_the_nearest_once_each() -> None:
    assert nearest([-2.0, 0.5, 1.0, 9.0], (-5, 0, 1, 10)) == [0, 1, 2, 3]
    assert nearest([1.0, 3.0], (-2, 0, 1)) == [0]


def test_points_are_drawn_in_their_class_colour_where_they_are(mixture: Mixture) -> None:
    plane = Plane(mixture, 4.0, 300)
    far = torch.full((3, 1, 2), 9.0)
    empty, one = plane.at(far), plane.at(torch.cat([far[:1], torch.tensor([[[3.0, 3.0]]]), far[2:]]))
    assert empty.size == one.size == (300, 300)
    added = (np.asarray(empty) != np.asarray(one)).any(2)
    added[:40] = False  # the title's line, which says how many lie outside
    rows, columns = np.nonzero(added)
    assert 190 < columns.mean() < 290 and rows.mean() < 110 and len(rows) < 60
    colour = [int(COLOURS[1][i : i + 2], 16) for i in (1, 3, 5)]
    pixels = np.asarray(one)[rows, columns].astype(int)
    assert abs(pixels - colour).sum(1).min() < 150


def test_the_command_writes_video_stills_curves_table_and_page(run_command: Command, tmp_path: Path) -> None:
    small = ("values=[0,1,3]", "count=10", "num_inference_steps=10")
    code, said = run_command(toy_guidance.main, f"out={tmp_path / 'out'}", *small)
    assert code == 0, said
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".json")
    assert names == ["curves.png", "index.html", "stills.png", "toy_guidance.csv", "toy_guidance.mp4"]
    with (tmp_path / "out" / "toy_guidance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["guidance_scale"]) for row in rows] == [0, 1, 3]
    assert float(rows[2]["sure"]) > float(rows[0]["sure"])
    html = (tmp_path / "out" / "index.html").read_text()
    assert "guidance scale = 3" in html and 'type="range"' in html
    for name in ("toy_guidance.mp4", "stills.png"):
        facts = read_provenance(tmp_path / "out" / name)
        assert facts["guidance_scale"] == [0, 1, 3] and facts["means"] == MEANS and facts["seed"] == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("means=[]", "means: 0 classes; name 2 to 7"),
        ("means=[[[0,0]],[]]", "means: class 2 is []; name its components"),
        ("means=[[[0,0]],[[1,2,3]]]", "means: class 2 is [[1, 2, 3]]; name its components"),
        ("means=[[[0,0]],[[nan,1]]]", "means: class 2 is [[nan, 1]]; name its components"),
        ("means=[0]", "means=[0]: must be a list"),
        ("std=0", "std=0: use 0.01 to 100"),
        ("count=1", "count=1: use at least 2"),
        ("values=[]", "values=[]: name at least one finite number"),
        ("values=[1,1]", "values: use guidance scales from -1000 to 1000, each once"),
        ("last=inf", "first=-2.0 last=inf points=97: use finite ends"),
        ("points=0", "points=0: use finite ends and at least 1 point"),
        ("num_inference_steps=0", "num_inference_steps=0: use 1 to 1000"),
        ("fps=nan", "fps=nan: use more than 0"),
        ("video=avi", "video=avi: use mp4 or gif"),
        ("seed=x", "seed=x: must be int"),
        ("out=", "out=: is empty; give it a value"),
    ],
)
def test_mistakes_are_one_line(
    run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run_command(toy_guidance.main, override)
    assert code == 2 and words in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
