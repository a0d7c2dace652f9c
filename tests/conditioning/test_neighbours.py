"""Texts told by the pictures that are nearest to them, with a stand-in for the CLIP model."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from fake_clip import DIM, FakeClip, all_inputs, image_set, pictures
from torch.nn.functional import normalize

from lab.conditioning import ClipVector
from lab.conditioning import clip as clip_module
from lab.conditioning.base import Request
from lab.errors import LabError

CPU = torch.device("cpu")
TEXTS = ["a red rose", "a blue daisy", "leaves"]


def nearest_of(conditioner: ClipVector, count: int) -> list[list[int]]:
    """The pictures of greatest cosine with each text about the pictures' mean, by hand."""
    texts = conditioner.inputs(Request(prompts=TEXTS)) - conditioner.mean
    about = conditioner.pictures - conditioner.mean
    cosines = [[float(t @ p / t.norm() / p.norm()) for p in about] for t in texts]
    return [sorted(range(len(row)), key=lambda i: -row[i])[:count] for row in cosines]


def test_a_run_remembers_pictures_up_to_a_number(
    prepared: ClipVector, clip: FakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = {tuple(row) for row in all_inputs(prepared).tolist()}
    assert {tuple(row) for row in prepared.pictures.tolist()} == vectors
    monkeypatch.setattr(clip_module, "REMEMBERED", 7)
    few = ClipVector()
    few.prepare(image_set(), str(tmp_path))
    assert few.pictures.shape == (7, DIM) and {tuple(row) for row in few.pictures.tolist()} < vectors
    later = ClipVector(dim=DIM)
    later.remember(image_set(), str(tmp_path))
    assert torch.equal(later.pictures, few.pictures)


@pytest.mark.parametrize(("neighbours", "nearest"), [(1, 5), (2, 3), (3, 3), (2, 1000)])
def test_each_choice_is_the_mean_of_some_of_the_nearest(prepared: ClipVector, neighbours: int, nearest: int) -> None:
    prepared.neighbours, prepared.nearest = neighbours, nearest
    told = prepared.asked(Request(prompts=TEXTS), CPU)
    assert told.vector.shape == (3, DIM) and told.choices is not None and told.choices.shape == (3, 32, DIM)
    for row, near in enumerate(nearest_of(prepared, nearest)):
        means = [prepared.pictures[list(some)].mean(dim=0) for some in combinations(near, neighbours)]
        possible = prepared(normalize(torch.stack(means), dim=1)).vector
        distances = torch.cdist(told.choices[row], possible, compute_mode="donot_use_mm_for_euclid_dist")
        assert float(distances.min(dim=1).values.max()) < 1e-3
        assert len(distances.argmin(dim=1).unique()) > min(len(possible), 32) / 3  # not always the same ones
        midst = prepared(normalize(prepared.pictures[near].mean(dim=0), dim=0)[None]).vector[0]
        torch.testing.assert_close(told.vector[row], midst, rtol=1e-4, atol=1e-4)


def test_what_is_no_text_and_what_nothing_is_remembered_for_is_told_as_it_is(prepared: ClipVector) -> None:
    shown, said = Request(images=pictures(2)), Request(prompts=TEXTS)
    assert prepared.asked(shown, CPU).choices is None
    torch.testing.assert_close(prepared.asked(shown, CPU).vector, prepared(all_inputs(prepared)[:2]).vector)
    own = prepared(prepared.inputs(said)).vector
    remembered, prepared.pictures = prepared.pictures, prepared.pictures[:0]
    assert torch.equal(prepared.asked(said, CPU).vector, own) and prepared.asked(said, CPU).choices is None
    prepared.pictures, prepared.neighbours = remembered, 0
    assert torch.equal(prepared.asked(said, CPU).vector, own) and prepared.asked(said, CPU).choices is None
    prepared.neighbours = 4
    assert not torch.equal(prepared.asked(said, CPU).vector, own)


def test_classes_are_told_by_pictures_too(prepared: ClipVector) -> None:
    by_class = prepared.asked(Request(classes=["daisy"]), CPU)
    by_words = prepared.asked(Request(prompts=["a photo of a daisy, a type of flower"]), CPU)
    assert by_class.choices is not None and by_words.choices is not None
    assert torch.equal(by_class.choices, by_words.choices)


def test_weights_bring_as_many_pictures_as_they_have(prepared: ClipVector) -> None:
    state = prepared.state_dict()
    again = ClipVector(dim=DIM)
    again.load_state_dict(state)
    assert torch.equal(again.pictures, prepared.pictures)
    with torch.device("meta"):
        first, second = ClipVector(dim=DIM), ClipVector(dim=DIM)
    first.load_state_dict(state, assign=True)
    assert torch.equal(first.pictures, prepared.pictures)
    del state["pictures"]  # of a run from before there were any
    second.load_state_dict(state, assign=True)
    assert second.pictures.shape == (0, DIM) and not second.pictures.is_meta
    again.load_state_dict(state)  # which goes on now
    assert torch.equal(again.pictures, prepared.pictures)


@pytest.mark.parametrize("neighbours", [-1, 17])
def test_numbers_of_neighbours_that_cannot_be_are_refused(neighbours: int) -> None:
    with pytest.raises(LabError, match=r"conditioning\.neighbours=.*: use 0 to conditioning\.nearest=16"):
        ClipVector(neighbours=neighbours)


@pytest.mark.parametrize("number", [17, -1, 2.5])
def test_so_many_neighbours_as_cannot_be_are_refused_wherever_they_are_set(prepared: ClipVector, number: float) -> None:
    before = prepared.neighbours
    with pytest.raises(LabError, match=rf"neighbours={number}: use 0 to the run's conditioning\.nearest=16"):
        prepared.neighbours = number  # type: ignore[assignment]
    assert prepared.neighbours == before
