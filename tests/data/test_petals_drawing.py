"""The factors must be in the picture: they are measured in what is painted, not read from the recipe."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lab.data.petals_drawing import NUMBERS, paint
from lab.data.petals_kinds import KINDS
from lab.data.petals_looks import CENTRE_COLOURS, PETAL_COLOURS


@pytest.fixture(scope="module")
def flowers() -> tuple[Tensor, Tensor]:
    """Five of each kind: pictures (200, 64, 64, 3) and petal cover (200, 64, 64)."""
    return paint(list(KINDS) * 5, torch.rand(200, NUMBERS, generator=torch.Generator().manual_seed(0)), 64)


def hue(colours: Tensor) -> Tensor:
    """Colours (..., 3) without their brightness."""
    return colours / colours.amax(-1, keepdim=True)


def middles(cover: Tensor) -> Tensor:
    """Centres of mass (B, 2), (x, y) in pixels."""
    grid = torch.arange(64.0)
    mass = cover.sum((1, 2))
    return torch.stack([(cover.sum(1) * grid).sum(1) / mass, (cover.sum(2) * grid).sum(1) / mass], dim=1)


def test_mean_petal_colour_is_nearest_to_the_named_one(flowers: tuple[Tensor, Tensor]) -> None:
    pixels, cover = flowers
    weight = (cover > 0.9)[..., None].float()
    means = (pixels * weight).sum((1, 2)) / weight.sum((1, 2))
    names = list(PETAL_COLOURS)
    palette = torch.tensor([PETAL_COLOURS[name] for name in names], dtype=torch.float32)
    nearest = torch.cdist(hue(means), hue(palette)).argmin(1)
    assert [names[i] for i in nearest] == [kind.petal_colour for kind in KINDS] * 5


def test_petals_can_be_counted(flowers: tuple[Tensor, Tensor]) -> None:
    _, cover = flowers
    angle = torch.arange(360) * (2 * math.pi / 360)
    ring = torch.stack([angle.cos(), angle.sin()], dim=-1)  # (360, 2)
    radius = torch.linspace(10, 16, 7)[:, None, None]  # px, outside the centre and inside the clefts
    places = middles(cover)[:, None, None] + radius * ring  # (B, 7, 360, 2)
    along = F.grid_sample(cover[:, None], places / 31.5 - 1, align_corners=True)[:, 0]  # (B, 7, 360)
    strength = torch.fft.rfft(along, dim=-1).abs().mean(1)  # (B, frequencies)
    counted = strength[:, 3:13].argmax(1) + 3
    true = torch.tensor([kind.petal_count for kind in KINDS] * 5)
    assert (counted == true).float().mean() > 0.93  # round petals touch their neighbours: some of those are missed


def first_axis(rotation: float) -> Tensor:
    """Where a petal of three points, in thirds of a turn from upwards (B,): the angle of the third harmonic."""
    numbers = torch.rand(64, NUMBERS, generator=torch.Generator().manual_seed(2))
    _, cover = paint([kind for kind in KINDS if kind.petal_count == 3][:1] * 64, numbers, 64, rotation)
    grid = torch.arange(64.0)
    x, y = (
        (grid[None, None] - middles(cover)[:, 0, None, None]),
        (grid[None, :, None] - middles(cover)[:, 1, None, None]),
    )
    turned = torch.atan2(y, x) + math.pi / 2  # image rows count downwards
    return ((cover * torch.exp(3j * turned)).sum((1, 2))).angle() / (2 * math.pi)


def test_rotation_is_the_share_of_a_turn_that_is_random() -> None:
    upright, slightly, anyhow = (first_axis(rotation).abs() for rotation in (0.0, 0.1, 1.0))
    assert upright.max() < 0.2  # petals are curved by up to 0.35 radians at their tips: 0.17 of a third
    assert upright.mean() < slightly.mean() < anyhow.mean()
    assert 0.2 < anyhow.mean() < 0.3  # uniform on [0, 0.5]


def test_the_middle_has_the_colour_of_the_centre(flowers: tuple[Tensor, Tensor]) -> None:
    pixels, _ = flowers
    cover = 1 - flowers[1]
    names = list(CENTRE_COLOURS)
    palette = torch.tensor([CENTRE_COLOURS[name] for name in names], dtype=torch.float32)
    x, y = middles(flowers[1]).round().long().unbind(1)
    row = torch.arange(len(pixels))
    inside = cover[row, y, x] > 0.9
    nearest = torch.cdist(pixels[row, y, x].float(), palette).argmin(1)
    true = torch.tensor([names.index(kind.centre_colour) for kind in KINDS] * 5)
    assert inside.float().mean() > 0.9
    assert (nearest == true)[inside].float().mean() > 0.9


def test_large_centres_are_larger(flowers: tuple[Tensor, Tensor]) -> None:
    """The hole in the petals' cover around the middle, in pixels."""
    _, cover = flowers
    grid = torch.arange(64.0)
    x, y = middles(cover).unbind(1)
    away = torch.hypot(grid[None, None] - x[:, None, None], grid[None, :, None] - y[:, None, None])
    hole = ((away < 9) & (cover < 0.5)).sum((1, 2)).float()
    large = torch.tensor([kind.centre_size == "large" for kind in KINDS] * 5)
    many = torch.tensor([kind.petal_count >= 8 for kind in KINDS] * 5)
    assert hole[large & many].mean() > 1.5 * hole[~large & many].mean()


def test_the_flower_lies_whole_inside_the_picture(flowers: tuple[Tensor, Tensor]) -> None:
    _, cover = flowers
    border = torch.cat([cover[:, 0], cover[:, -1], cover[:, :, 0], cover[:, :, -1]], dim=1)
    assert border.max() == 0
    assert (cover.mean((1, 2)) > 0.05).all()


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    numbers = torch.rand(8, NUMBERS, generator=torch.Generator().manual_seed(1))
    together, _ = paint(list(KINDS[:8]), numbers, 32)
    alone, _ = paint([KINDS[5]], numbers[5:6], 32)
    assert (together[5].int() - alone[0].int()).abs().max() <= 1  # rounding


def test_sizes_show_the_same_flower() -> None:
    numbers = torch.rand(8, NUMBERS, generator=torch.Generator().manual_seed(1))
    small, large = (paint(list(KINDS[:8]), numbers, size)[0].permute(0, 3, 1, 2).float() for size in (32, 96))
    assert (F.avg_pool2d(large, 3) - small).abs().mean() < 3
