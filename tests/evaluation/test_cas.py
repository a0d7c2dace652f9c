"""What a classifier learns from pictures alone: trained once, and under a name of their own."""

import contextlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lab.data import ImageSet
from lab.evaluation import cas
from lab.evaluation.cas import classification_accuracy

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
    for some, classes, steps, seed in [
        (pixels, labels, 1, 0), (other, labels, 1, 0), (pixels, 1 - labels, 1, 0), (pixels, labels, 2, 0),
        (pixels, labels, 1, 1), (pixels, labels, 1, 0),
    ]:  # fmt: skip
        cas.classification_accuracy(some, classes, held_out, tmp_path, steps, seed)
    assert len(set(folders)) == 5 and folders[0] == folders[-1]
