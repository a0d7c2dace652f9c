from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lab.clip.colours import COLOURS, dominant_colours, name_pixels, rgb_to_lab

Disc = Callable[..., Tensor]
PETALS = ("red", "orange", "yellow", "blue", "purple", "pink", "white")


def named(*pictures: Tensor) -> list[str]:
    return [COLOURS[i] for i in dominant_colours(torch.stack(pictures)).tolist()]


def test_lab_of_known_colours() -> None:
    """Values of the sRGB primaries under D65, as colour-science tables give them."""
    lab = rgb_to_lab(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]]))
    expected = torch.tensor(
        [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [100, 0, 0], [0, 0, 0]]
    )
    torch.testing.assert_close(lab, expected, atol=0.05, rtol=0)


def test_every_basic_colour_is_called_by_its_name(rgb: dict[str, tuple[int, int, int]]) -> None:
    names = name_pixels(torch.tensor(list(rgb.values()), dtype=torch.uint8))
    assert [COLOURS[i] for i in names.tolist()] == list(rgb)


def test_a_picture_full_of_one_colour_has_that_colour(disc: Disc, rgb: dict[str, tuple[int, int, int]]) -> None:
    assert named(*(disc(code, background=code) for code in rgb.values())) == list(rgb)


@pytest.mark.parametrize("background", [(60, 90, 45), (25, 45, 25), (120, 85, 50), (10, 10, 10), (130, 130, 128)])
def test_a_flower_is_told_from_what_is_behind_it(
    disc: Disc, rgb: dict[str, tuple[int, int, int]], background: tuple[int, int, int]
) -> None:
    pictures = [disc(rgb[colour], background, radius=r) for colour in PETALS for r in (0.2, 0.45)]
    assert named(*pictures) == [colour for colour in PETALS for _ in range(2)]


def test_a_bright_sky_does_not_win(disc: Disc, rgb: dict[str, tuple[int, int, int]]) -> None:
    assert named(disc(rgb["red"], background=(120, 180, 235), radius=0.25)) == ["red"]


def test_a_flower_off_the_middle_is_found(disc: Disc, rgb: dict[str, tuple[int, int, int]]) -> None:
    assert named(disc(rgb["purple"], radius=0.25, centre=(0.35, 0.6))) == ["purple"]


def test_petals_outvote_the_heart_of_the_flower(disc: Disc, rgb: dict[str, tuple[int, int, int]]) -> None:
    petals, heart = disc(rgb["white"], radius=0.4), disc(rgb["yellow"], radius=0.12)
    inside = (heart == torch.tensor(rgb["yellow"])).all(dim=-1, keepdim=True)
    assert named(torch.where(inside, heart, petals)) == ["white"]


def test_noise_and_shade_change_little(disc: Disc, rgb: dict[str, tuple[int, int, int]]) -> None:
    noise = torch.randn(72, 72, 3, generator=torch.Generator().manual_seed(0)) * 12
    shade = torch.linspace(0.75, 1.0, 72)[:, None, None]
    pictures = [(disc(rgb[c]) * shade + noise).clamp(0, 255).to(torch.uint8) for c in ("red", "blue", "purple")]
    assert named(*pictures) == ["red", "blue", "purple"]


def test_a_picture_is_judged_alone(disc: Disc, rgb: dict[str, tuple[int, int, int]]) -> None:
    pictures = [disc(rgb[colour], size=48) for colour in PETALS] * 100  # more than one chunk
    assert named(*pictures) == list(PETALS) * 100
