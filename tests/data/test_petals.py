from pathlib import Path

import pytest
import torch

from lab.data import Petals
from lab.data.petals_kinds import KINDS, captions, class_name
from lab.errors import LabError


def test_an_image_does_not_depend_on_the_size_of_the_set(tmp_path: Path) -> None:
    small = Petals(image_size=32, size=13, cache_dir=str(tmp_path / "a")).load("train")
    large = Petals(image_size=32, size=50, cache_dir=str(tmp_path / "b")).load("train")
    assert len(small) == 13
    assert torch.equal(small.pixels, large.pixels[:13])
    assert small.captions == large.captions[:13]
    assert small.fingerprint != large.fingerprint


def test_seeds_splits_and_images_differ(tmp_path: Path) -> None:
    def load(split: str, seed: int) -> torch.Tensor:
        return Petals(32, size=80, held_out_size=80, seed=seed, cache_dir=str(tmp_path)).load(split).pixels

    train = load("train", 0)
    assert torch.equal(train, load("train", 0))
    for other in (load("held_out", 0), load("train", 1)):
        assert (train != other).flatten(1).any(1).all()
    assert (train[:40] != train[40:]).flatten(1).any(1).all()  # two flowers of each kind
    upright = Petals(32, size=80, rotation=0, cache_dir=str(tmp_path)).load("train")
    assert (train != upright.pixels).flatten(1).any(1).all()


def test_each_image_has_its_class_factors_and_a_true_caption(tmp_path: Path) -> None:
    flowers = Petals(image_size=16, size=100, cache_dir=str(tmp_path)).load("train")
    assert flowers.class_names == tuple(class_name(kind) for kind in KINDS)
    assert (flowers.labels.bincount() >= 2).all()
    assert len(set(flowers.captions)) > 60
    for i, (caption, factors) in enumerate(zip(flowers.captions, flowers.factors, strict=True)):
        kind = KINDS[int(flowers.labels[i])]
        assert factors == {
            "petal_colour": kind.petal_colour,
            "petal_count": kind.petal_count,
            "petal_shape": kind.petal_shape,
            "centre_colour": kind.centre_colour,
            "centre_size": kind.centre_size,
        }
        assert caption in captions(kind)
        assert kind.petal_colour in caption


@pytest.mark.parametrize("size", [8, 33, 96])
def test_any_size_with_or_without_a_margin(tmp_path: Path, size: int) -> None:
    assert Petals(size, size=2, cache_dir=str(tmp_path)).load("train").pixels.shape == (2, size, size, 3)
    roomy = Petals(size, size=2, cache_dir=str(tmp_path), crop_margin=0.25).load("train")
    assert roomy.margin == round(size * 1.25) - size
    assert roomy.view(torch.tensor([0, 1]), torch.Generator()).shape == (2, 3, size, size)


def test_bad_values_are_refused_by_name(tmp_path: Path) -> None:
    for key in ("image_size", "size", "held_out_size"):
        with pytest.raises(LabError, match=rf"data\.{key}=0"):
            Petals(**{key: 0})
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(LabError, match=r"data\.rotation="):
            Petals(rotation=share)
    with pytest.raises(LabError, match="unknown split 'val'"):
        Petals(cache_dir=str(tmp_path)).load("val")
