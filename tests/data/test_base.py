from collections.abc import Callable

import pytest
import torch

from lab.data import ImageSet
from lab.data.base import check_sizes, fingerprint, stored_side
from lab.errors import LabError

MakeSet = Callable[..., ImageSet]


def test_central_view_is_the_middle_of_the_pixels(make_set: MakeSet) -> None:
    images = make_set(margin=4)
    view = images.view(torch.tensor([7, 2]))
    expected = images.pixels[[7, 2], 2:-2, 2:-2].permute(0, 3, 1, 2).float() / 127.5 - 1
    assert view.shape == (2, 3, 8, 8)
    assert view.dtype == torch.float32
    assert view.is_contiguous()
    assert torch.equal(view, expected)


def test_bytes_0_and_255_are_exactly_minus_1_and_1(make_set: MakeSet) -> None:
    images = make_set(margin=0)
    images.pixels[0], images.pixels[1] = 0, 255
    view = images.view(torch.tensor([0, 1]))
    assert (view[0] == -1).all()
    assert (view[1] == 1).all()


def test_every_random_view_is_a_crop_or_its_mirror_image(make_set: MakeSet) -> None:
    images = make_set(margin=3)
    indices = torch.arange(10).repeat(30)
    views = images.view(indices, torch.Generator().manual_seed(1))
    seen = set()
    for index, view in zip(indices.tolist(), views, strict=True):
        whole = images.pixels[index].permute(2, 0, 1).float() / 127.5 - 1
        found = [
            (top, left, flipped)
            for top in range(4)
            for left in range(4)
            for flipped in (False, True)
            if torch.equal(
                view,
                whole[:, top : top + 8, left : left + 8].flip(2)
                if flipped
                else whole[:, top : top + 8, left : left + 8],
            )
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 32  # every place, up to both edges, mirrored and not


def test_half_of_the_views_are_mirrored_or_none(make_set: MakeSet) -> None:
    placed = make_set().place(4000, torch.Generator().manual_seed(0))
    assert abs(placed.flipped.float().mean() - 0.5) < 0.03  # 4 standard deviations
    unflipped = make_set().place(4000, torch.Generator().manual_seed(0), flip=False)
    assert not unflipped.flipped.any()
    assert torch.equal(unflipped.top, placed.top)


def test_places_are_uniform(make_set: MakeSet) -> None:
    placed = make_set(margin=3).place(4000, torch.Generator().manual_seed(0))
    for offsets in (placed.top, placed.left):
        counts = offsets.bincount()
        assert len(counts) == 4
        assert ((counts - 1000).abs() < 120).all()


def test_batch_carries_labels_and_indices(make_set: MakeSet) -> None:
    images = make_set(count=4, labels=[0, 1, 2, 1])
    batch = images.batch(torch.tensor([3, 0]))
    assert batch.labels.tolist() == [1, 0]
    assert batch.indices.tolist() == [3, 0]
    assert torch.equal(batch.images, images.view(torch.tensor([3, 0])))


@pytest.mark.parametrize("size", [0, -64, 64.0, "64", True, None])
def test_impossible_sizes_are_refused_by_name(size: object) -> None:
    with pytest.raises(LabError, match=r"data\.image_size=.*at least 1"):
        check_sizes(size, 0.125)


@pytest.mark.parametrize("margin", [-0.1, 1.5, float("nan")])
def test_impossible_margins_are_refused_by_name(margin: float) -> None:
    with pytest.raises(LabError, match=r"data\.crop_margin="):
        check_sizes(64, margin)


def test_stored_side_leaves_the_margin() -> None:
    assert stored_side(64, 0.125) == 72
    assert stored_side(64, 0) == 64


def test_fingerprint_tells_parts_apart() -> None:
    assert fingerprint("a", [1, 2]) == fingerprint("a", [1, 2])
    parts = [("a", [1, 2]), ("a", [2, 1]), ("a", 1, 2), ("b", [1, 2])]
    assert len({fingerprint(*some) for some in parts}) == 4
    assert len(fingerprint("a")) == 16
