"""Which pictures' losses a diffusion run tells side by side."""

import logging
from dataclasses import dataclass, replace
from typing import cast

import pytest
import torch
from omegaconf import DictConfig

from lab.config import compose
from lab.data import BatchStream, ImageSet, Source
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.recipes.diffusion import compared_streams


@dataclass
class Given:
    """A source whose held-out pictures are these; None: it holds nothing out."""

    images: ImageSet | None

    def load(self, split: str) -> ImageSet:
        assert split == "held_out"
        if self.images is None:
            raise LabError("data.held_out_fraction=0 holds nothing out")
        return self.images


@pytest.fixture
def seen() -> ImageSet:
    """Ten times as many roses as tulips."""
    labels = (torch.arange(110) % 11 == 0).long()
    return ImageSet("seen", torch.zeros(110, 8, 8, 3, dtype=torch.uint8), labels, ("rose", "tulip"), 8, (), (), "a")


@pytest.fixture
def unseen(seen: ImageSet) -> ImageSet:
    """As many of either."""
    return replace(seen, name="unseen", pixels=seen.pixels[:40] + 9, labels=torch.arange(40) % 2, fingerprint="b")


def config(*overrides: str) -> DictConfig:
    return compose("train", ["training.preview_every=5", *overrides])


def test_both_sides_show_the_same_classes(seen: ImageSet, unseen: ImageSet, model: DiffusionModel) -> None:
    sides = compared_streams(config(), cast(Source, Given(unseen)), BatchStream(seen, 32, seed=1), model)
    assert {name: stream.image_set.name for name, (stream, _) in sides.items()} == {
        "seen_loss": "seen",
        "held_out_loss": "unseen",
    }
    (one, own), (other, of_others) = sides["seen_loss"], sides["held_out_loss"]
    assert own is model.conditioner and of_others is model.conditioner  # labels need no other
    for step in range(3):
        assert torch.equal(one.batch(step).labels, other.batch(step).labels)
        assert bool((one.batch(step).images < -0.99).all()) and bool((other.batch(step).images > -0.99).all())


@pytest.mark.parametrize("missing", [0, 1])
def test_a_class_of_which_nothing_is_held_out_is_not_compared(
    seen: ImageSet, unseen: ImageSet, model: DiffusionModel, missing: int
) -> None:
    labels = torch.full_like(unseen.labels, 1 - missing)
    sides = compared_streams(
        config(), cast(Source, Given(replace(unseen, labels=labels))), BatchStream(seen, 32, seed=1), model
    )
    for stream, _ in sides.values():
        assert stream.batch(0).labels.unique().tolist() == [1 - missing]


def test_pictures_without_classes_are_compared_too(seen: ImageSet, unseen: ImageSet, model: DiffusionModel) -> None:
    one, other = (replace(images, labels=torch.full_like(images.labels, -1)) for images in (seen, unseen))
    sides = compared_streams(config(), cast(Source, Given(other)), BatchStream(one, 200, seed=1), model)
    assert [stream.batch_size for stream, _ in sides.values()] == [64, 64]


@pytest.mark.parametrize("override", ["preview.held_out=0", "training.preview_every=0"])
def test_nobody_looks(seen: ImageSet, unseen: ImageSet, model: DiffusionModel, override: str) -> None:
    stream = BatchStream(seen, 32, seed=1)
    assert compared_streams(config(override), cast(Source, Given(unseen)), stream, model) == {}


def test_a_set_that_holds_nothing_out_is_trained_on_all_the_same(
    seen: ImageSet, model: DiffusionModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert compared_streams(config(), cast(Source, Given(None)), BatchStream(seen, 32, seed=1), model) == {}
    assert "preview.held_out=0" in caplog.text and "holds nothing out" in caplog.text
