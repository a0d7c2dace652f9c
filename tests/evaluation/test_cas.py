"""What a classifier learns from pictures alone: trained once, and under a name of their own."""

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lab.data import ImageSet
from lab.evaluation import cas
from lab.evaluation.cas import classification_accuracy
from lab.evaluation.worth import Measures, Worth, floor_pictures

NAMES = ("dark", "light")


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pixels (N, 32, 32, 3) uint8 of dark and light noise in turn, and their classes (N,)."""
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 60, (count, 32, 32, 3), generator=torch.Generator().manual_seed(seed))
    return (noise + 160 * labels[:, None, None, None]).to(torch.uint8), labels


@pytest.fixture
def held_out() -> ImageSet:
    pixels, labels = pictures(20, seed=1)
    return ImageSet("noise", pixels, labels, NAMES, 32, (), (), "held out")


def test_it_recognises_what_it_was_shown_and_is_trained_once(held_out: ImageSet, tmp_path: Path) -> None:
    pixels, labels = pictures(64, seed=0)
    found = classification_accuracy(pixels, labels, held_out, tmp_path, steps=12)
    assert found["top1"] == 1.0
    (trained,) = tmp_path.glob("cas-*/")
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")}
    assert before and classification_accuracy(pixels, labels, held_out, tmp_path, steps=12) == found
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")} == before


def test_other_pictures_classes_steps_and_seeds_are_others(
    held_out: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    class Untrained:
        def __init__(self, task: object, run_dir: Path, settings: object, seed: int) -> None:
            folders.append(run_dir)
            self.ema = self

        def run(self) -> None: ...

        def in_place(self) -> contextlib.AbstractContextManager[None]:
            return contextlib.nullcontext()

    monkeypatch.setattr(cas, "Trainer", Untrained)
    monkeypatch.setattr(cas.JudgeTask, "judge", lambda task: None)  # which counts statistics anew
    monkeypatch.setattr(cas, "recognition", lambda judge, images: {})
    pixels, labels = pictures(8, seed=0)
    other = pixels.clone()
    other[0, 0, 0, 0] += 1
    other[1, 0, 0, 0] -= 1  # the sum is the same
    for some, classes, steps, seed, flip in [
        (pixels, labels, 1, 0, True), (other, labels, 1, 0, True), (pixels, 1 - labels, 1, 0, True),
        (pixels, labels, 2, 0, True), (pixels, labels, 1, 1, True), (pixels, labels, 1, 0, False),
        (pixels, labels, 1, 0, True),
    ]:  # fmt: skip
        cas.classification_accuracy(some, classes, held_out, tmp_path, steps, seed, flip)
    assert len(set(folders)) == 6 and folders[0] == folders[-1]


def test_one_classifier_learns_from_the_samples_and_one_from_the_floor(
    held_out: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[Path, tuple[Any, ...]] = {}

    def accuracy(
        pixels: Tensor, labels: Tensor, of: ImageSet, root: Path, steps: int, seed: int, flip: bool
    ) -> dict[str, float]:
        asked[root] = (pixels, labels, of, steps, seed, flip)
        return {"top1": len(asked) / 10, "top5": len(asked) / 5}

    monkeypatch.setattr(cas, "classification_accuracy", accuracy)
    train = ImageSet("noise", *pictures(24, seed=2), NAMES, 32, (), (), "train")
    samples = pictures(8, seed=0)
    nothing = Measures(*[math.nan] * 13)
    before = Worth(nothing, nothing, nothing, {}, 24, 20, 16, "small", seed=5)
    own, shared = tmp_path / "own", tmp_path / "shared"
    found = cas.with_cas(before, 7, samples, train, held_out, own, shared, flip=False)
    floor = floor_pictures(train, 8, seed=5)[0]
    for root, (pixels, labels) in {own: samples, shared: (train.pixels[floor], train.labels[floor])}.items():
        assert torch.equal(asked[root][0], pixels) and torch.equal(asked[root][1], labels)
        assert asked[root][2:] == (held_out, 7, 5, False)
    assert (found.generated.cas_top1, found.generated.cas_top5) == (0.1, 0.2)
    assert (found.real.cas_top1, found.real.cas_top5, found.cas_n) == (0.2, 0.4, 8)


def test_the_time_is_that_of_the_fastest_of_three_steps(held_out: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 9.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr(cas.time, "perf_counter", lambda: next(ticks))
    assert cas.cas_seconds(held_out, steps=100) == 200.0
