from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lab.clip.augment import Augmentation, blend, mixing

STILL = Augmentation(area=(1, 1), aspect=1, turn=0, light=0, erase=0)
ALL = slice(None)


def pictures(count: int = 6, size: int = 36) -> Tensor:
    return torch.randint(0, 256, (count, size, size, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_any_change_a_view_is_the_picture_or_its_mirror_image() -> None:
    pixels = pictures(40, 32)
    views = STILL(pixels, 32, draw(), ALL)
    plain = pixels.permute(0, 3, 1, 2) / 127.5 - 1
    as_is = (views - plain).abs().amax(dim=(1, 2, 3)) < 1e-4
    mirrored = (views - plain.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (as_is | mirrored).all()
    assert 8 < int(mirrored.sum()) < 32


def test_ranks_see_their_parts_of_the_whole_batch() -> None:
    pixels, augmentation = pictures(), Augmentation()
    whole = augmentation(pixels, 32, draw(), ALL)
    parts = [augmentation(pixels, 32, draw(), slice(i, i + 3)) for i in (0, 3)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert whole.shape == (6, 3, 32, 32) and whole.dtype == torch.float32
    assert float(whole.min()) >= -1 and float(whole.max()) <= 1


def test_views_differ_and_repeat_with_the_generator() -> None:
    pixels = pictures(1).expand(5, -1, -1, -1)
    views = Augmentation()(pixels, 32, draw(), ALL)
    assert all((views[0] - views[i]).abs().mean() > 0.05 for i in range(1, 5))
    torch.testing.assert_close(views, Augmentation()(pixels, 32, draw(), ALL))


def test_colour_stays_colour(disc: Callable[..., Tensor], rgb: dict[str, tuple[int, int, int]]) -> None:
    """A red picture gets lighter or darker, its green and blue stay far below its red."""
    views = Augmentation(erase=0)(disc(rgb["red"], rgb["red"]).expand(50, -1, -1, -1), 64, draw(), ALL)
    red, green, blue = ((views + 1) / 2).unbind(1)
    assert float(red.std()) > 0.01
    assert float((red - torch.maximum(green, blue)).min()) > 0.5


def test_a_crop_shows_that_share_of_the_picture() -> None:
    """On a ramp from left to right, the range of a view's columns is the crop's width."""
    ramp = torch.linspace(0, 255, 64).round().to(torch.uint8).expand(200, 64, 64)[..., None].expand(-1, -1, -1, 3)
    views = Augmentation(area=(0.25, 0.25), aspect=1, turn=0, light=0, erase=0)(ramp, 32, draw(), ALL)
    columns = views[:, 0, 16]
    width = (columns[:, -1] - columns[:, 0]).abs() / 2
    torch.testing.assert_close(width, torch.full((200,), 0.5 * 31 / 32), atol=0.02, rtol=0)
    left = torch.minimum(columns[:, 0], columns[:, -1])
    assert float(left.min()) < -0.9 and float(left.max()) > -0.1  # anywhere in the picture


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)])
def test_erasing_paints_grey_squares(probability: float, low: int, high: int) -> None:
    white = torch.full((200, 32, 32, 3), 255, dtype=torch.uint8)
    views = Augmentation(area=(1, 1), aspect=1, turn=0, light=0, erase=probability)(white, 32, draw(), ALL)
    grey = (views == 0).all(dim=1).float().mean(dim=(1, 2))
    assert low <= int((grey > 0).sum()) <= high
    assert all(0.04 < share < 0.3 for share in grey[grey > 0].tolist())


def test_larger_pictures_are_averaged_not_sampled() -> None:
    """A checkerboard of single pixels has no contrast left at a quarter of its size."""
    board = ((torch.arange(128)[:, None] + torch.arange(128)) % 2 * 255).to(torch.uint8)
    views = STILL(board.expand(2, 128, 128)[..., None].expand(-1, -1, -1, 3), 32, draw(), ALL)
    assert float(views.abs().max()) < 0.1


def test_nothing_is_mirrored_where_sides_matter() -> None:
    pixels = pictures(40, 32)
    views = replace(STILL, mirror=False)(pixels, 32, draw(), ALL)
    torch.testing.assert_close(views, pixels.permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-4, rtol=0)


def test_blends_are_of_half_of_the_views_with_one_partner_each() -> None:
    partners, weight = mixing(4000, draw())
    assert sorted(partners.tolist()) == list(range(4000))
    assert float((weight == 1).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(weight[weight < 1].mean()) == pytest.approx(0.5, abs=0.03)  # uniform


@pytest.mark.parametrize("own_first", [False, True])
def test_a_blend_is_the_weighted_sum_of_two_views_of_the_batch(own_first: bool) -> None:
    augmentation, pixels = Augmentation(), pictures(12)
    found = blend(augmentation, pixels, 32, draw(3), ALL, own_first)
    views = augmentation(pixels, 32, draw(3), ALL)
    share = found.weight[:, None, None, None]
    torch.testing.assert_close(found.views, share * views + (1 - share) * views[found.partners])
    assert bool((found.weight >= (0.5 if own_first else 0)).all()) and bool((found.weight < 1).any())
    parts = [blend(augmentation, pixels, 32, draw(3), slice(i, i + 4), own_first) for i in (0, 4, 8)]
    torch.testing.assert_close(torch.cat([part.views for part in parts]), found.views)
    assert all(torch.equal(part.partners, found.partners) for part in parts)
