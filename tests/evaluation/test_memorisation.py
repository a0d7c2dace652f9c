"""Copies that were planted are found, and others are not."""

import pytest
import torch

from lab.evaluation import Audit, audit, nearest
from lab.evaluation.memorisation import chance_of, threshold_of

NONE = (torch.zeros(0, 48), torch.zeros(0, dtype=torch.long))


def rows(count: int, seed: int, dim: int = 48) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_planted_copies_are_all_found() -> None:
    train, held_out, generated = rows(300, 0), rows(200, 1), rows(60, 2)
    generated[:20] = train[100:120] + 0.05 * rows(20, 3)
    generated[20:25] = train[7:12].flip(1)  # mirrored
    found = audit(generated, [train, train.flip(1)], held_out, NONE)
    assert bool(found.copies[:25].all()) and found.neighbours[:25].tolist() == [*range(100, 120), *range(7, 12)]
    assert int(found.copies[25:].sum()) <= 2
    assert found.rate == pytest.approx(float(found.copies.sum()) / 60)
    assert set(found.suspicious(25).tolist()) == set(range(25))
    assert found.suspicious(5).tolist() == found.distances.argsort()[:5].tolist()


def test_held_out_pictures_are_copies_as_often_as_the_threshold_says() -> None:
    train, held_out = rows(300, 0), rows(400, 1)
    found = audit(held_out, [train], held_out, NONE)
    assert found.rate == pytest.approx(0.01, abs=0.003)
    evenly = Audit(torch.zeros(1), torch.zeros(1), torch.arange(10000.0), torch.zeros(1), 100.0)
    assert evenly.rate_held_out == pytest.approx(0.01, abs=0.005)  # one half by the threshold of the other


@pytest.mark.parametrize("held_out", [13, 50, 400])
def test_by_chance_more_lie_below_the_quantile_of_few(held_out: int) -> None:
    """The closed form beside what is counted where nothing is copied: every distance is drawn alike."""
    draw = torch.Generator().manual_seed(held_out)
    rates, halves, told = [], [], 0.0
    for _ in range(400):
        apart = 1 + torch.rand(held_out + 400, generator=draw)
        audited = Audit(apart[held_out:], NONE[1], apart[:held_out], NONE[1], threshold_of(apart[:held_out]))
        rates.append(audited.rate)
        halves.append(audited.rate_held_out)
        told = audited.chance
    assert sum(rates) / 400 == pytest.approx(told, rel=0.15)
    assert sum(halves) / 400 == pytest.approx(chance_of(held_out - held_out // 2), rel=0.25)


def test_copies_are_found_where_the_data_hold_duplicates() -> None:
    """Held-out pictures that are in the training set do not bring the threshold to nothing, and are told."""
    train, held_out, generated = rows(300, 0), rows(200, 1), rows(60, 2)
    held_out[:10], generated[:5] = train[:10], train[50:55] + 0.05 * rows(5, 3)
    found = audit(generated, [train], held_out, (train[:20], torch.arange(20)))
    assert found.threshold > 0.5 and bool(found.copies[:5].all()) and int(found.copies[5:].sum()) <= 2
    assert found.facts().held_out_in_training == 10
    assert found.rate_held_out == pytest.approx(0.05, abs=0.04)


def test_held_out_pictures_that_are_all_in_the_training_set_leave_exact_copies() -> None:
    train, generated = rows(30, 0), rows(20, 2)
    generated[:3] = train[:3]
    found = audit(generated, [train], train[:10], (train[:20], torch.arange(20)))
    assert found.threshold == 0 and int(found.copies.sum()) == 3


def test_duplicates_within_the_training_set_are_its_floor() -> None:
    """A training picture is compared with all others, in all views, but not with itself, not even mirrored."""
    train, held_out = rows(300, 0), rows(200, 1)
    train[200:210] = train[:10]
    train[20] = train[40].flip(0)
    train[60] = train[60] + train[60].flip(0)  # its own mirror image
    views = [train, train.flip(1)]
    some = torch.arange(0, 300, 2)
    found = audit(rows(60, 2), views, held_out, (train[some], some))
    assert len(found.real) == 150 and found.facts().real[0] == 0
    assert (found.real == 0).nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, 10, 20, 100, 101, 102, 103, 104]
    assert found.rate_real == pytest.approx(12 / 150, abs=0.02)


def test_the_distances_are_told_of_both_sides() -> None:
    train, held_out, generated = rows(300, 0), rows(200, 1), 2 * rows(60, 2)
    told = audit(generated, [train], held_out, (train[:20], torch.arange(20))).facts()
    assert len(told.generated) == len(told.shares) and told.generated == sorted(told.generated)
    assert all(far > near for far, near in zip(told.generated, told.held_out, strict=True))


def test_distances_are_root_mean_squares() -> None:
    distances, neighbours = nearest(
        torch.zeros(1, 4), [torch.tensor([[3.0] * 4, [0.5] * 4]), torch.tensor([[9.0] * 4, [0.75] * 4])]
    )
    assert distances.tolist() == [0.5] and neighbours.tolist() == [1]
