"""What is measured of vectors whose answer is known, and that near ones lie near each other on the map."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from experiments.clip_map import by_class, measure, moved
from experiments.clip_space import Space, around_names, gap, lay_out, purity, purity_by_chance, spread


def clusters(classes: int, each: int, noise: float = 0.01) -> tuple[Tensor, Tensor]:
    """Unit vectors (classes * each, 32) about one direction a class, and their labels."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(each)
    centres = torch.randn(classes, 32, generator=draw)
    return normalize(centres[labels] + noise * torch.randn(len(labels), 32, generator=draw), dim=1), labels


def constructed(shift: Tensor, classes: int = 6, each: int = 8) -> Space:
    """Pictures in clusters, and each class's mean moved back by `shift` as its text."""
    vectors, labels = clusters(classes, each)
    means = torch.stack([vectors[labels == label].mean(dim=0) for label in range(classes)])
    return Space(vectors, labels, means - shift, [f"class {label}" for label in range(classes)])


def test_clusters_are_pure_and_shuffled_labels_are_as_chance_has_it() -> None:
    vectors, labels = clusters(10, 30)
    assert purity(vectors, labels, 10).tolist() == [1.0] * 300
    shuffled = labels[torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    chance = purity_by_chance(labels)
    assert chance == pytest.approx(29 / 299)
    assert float(purity(vectors, shuffled, 10).mean()) == pytest.approx(chance, abs=0.02)


def test_all_others_as_neighbours_are_chance_itself() -> None:
    vectors, _ = clusters(3, 4)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    found = purity(vectors, labels, 11)  # none is its own neighbour
    assert found.tolist() == pytest.approx([5 / 11] * 6 + [2 / 11] * 6)
    assert float(found.mean()) == pytest.approx(purity_by_chance(labels))


def test_the_gap_is_the_shift_and_moving_closes_it() -> None:
    shift = torch.zeros(32)
    shift[:2] = torch.tensor([0.3, 0.4])
    found = constructed(shift)
    torch.testing.assert_close(gap(found), shift)
    row = measure("some", found, shift / 2, purity(found.pictures, found.labels, 5), 5)
    assert (row.gap, row.gap_moved, row.gap_by_run) == (pytest.approx(0.5), 0, pytest.approx(0.25))
    assert (row.pictures, row.classes, row.purity) == (48, 6, 1)
    assert row.spread_pictures == pytest.approx(spread(found.pictures)) and 0.8 < row.spread_pictures < 1


def test_the_gap_is_over_pairs_of_picture_and_name() -> None:
    vectors = torch.eye(3)[[0, 0, 0, 1]]
    space = Space(vectors, torch.tensor([0, 0, 0, 1]), torch.eye(3)[:2], ["a", "b"])
    assert float(gap(space).norm()) == 0  # the mean of names counts each as often as it has pictures


def test_names_beyond_a_gap_have_names_for_neighbours() -> None:
    shift = torch.full((32,), 2.0)
    found = constructed(shift)
    assert around_names(found, 5)[0] == 0
    assert around_names(moved(found, gap(found)), 5) == (1, 1)


def test_the_spread_is_a_root_mean_square_distance() -> None:
    assert spread(torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])) == pytest.approx(5**0.5)


def test_classes_are_told_of_from_the_purest_down() -> None:
    found = constructed(torch.zeros(32), classes=3, each=2)
    rows = by_class(found, torch.tensor([0.0, 1.0, 0.5, 0.2, 1.0, 0.5]))
    assert [(row["class"], row["pictures"]) for row in rows] == [("class 1", 2), ("class 2", 2), ("class 0", 2)]
    assert [row["purity"] for row in rows] == pytest.approx([1, 0.5, 0.1])


def test_the_map_keeps_neighbours_and_is_the_same_each_time() -> None:
    vectors, labels = clusters(3, 10, noise=0.1)
    places = lay_out(vectors, 8, seed=0)
    assert places.shape == (30, 2)
    nearest = (torch.cdist(places, places) + 1e9 * torch.eye(30)).argmin(dim=1)
    assert torch.equal(labels[nearest], labels)
    assert torch.equal(lay_out(vectors, 8, seed=0), places)
