"""Sheets of what judge, CLIP and autoencoder make of samples: each caption says what was seen, and what was asked."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import lab
from lab import there_and_back
from lab.clip import load_clip
from lab.clip.captions import class_prompts
from lab.clip.retrieval import phrase_vectors
from lab.errors import LabError
from lab.evaluation import sheets
from lab.judging import load_judge
from lab.runs import load_autoencoder

Drawn = dict[str, Sequence[str] | str | Tensor | int]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """What goes onto a sheet, instead of the sheet."""
    told: Drawn = {}

    def grid(images: Tensor, **texts: Sequence[str] | str | int) -> Image.Image:
        told.update(texts, images=images)
        return Image.new("RGB", (8, 8))

    for module in (sheets, there_and_back):
        monkeypatch.setattr(module, "grid", grid)
    return told


def first_of_seed_0(run: Path) -> Tensor:
    model = lab.load(run)
    asked = sheets.evenly(len(model.conditioner.class_names), sheets.SHOWN)  # type: ignore[arg-type]
    made = model.sample(classes=asked, output="tensor")
    assert isinstance(made, Tensor)
    return made


def test_numbers_are_spread_evenly_and_hold_both_ends() -> None:
    assert sheets.evenly(102, 24)[:3] == [0, 4, 9] and sheets.evenly(102, 24)[-1] == 101
    assert len(set(sheets.evenly(102, 24))) == 24
    assert sheets.evenly(3, 24) == [0, 1, 2] and sheets.evenly(0, 24) == []


def test_a_judges_sheet_tells_its_guesses_and_what_was_asked_for_where_they_differ(
    judge_run: Path, class_run: Path, drawn: Drawn
) -> None:
    sheets.sheet_of(judge_run, lab.load(class_run), "petals")
    judge, samples = load_judge(judge_run / "judge"), first_of_seed_0(class_run)
    torch.testing.assert_close(drawn["images"], samples)
    chances = judge.logits(samples).softmax(dim=1)
    names = judge.class_names
    expected = []
    for number, sure in zip(sheets.evenly(len(names), sheets.SHOWN), chances, strict=True):
        guess = int(sure.argmax())
        expected.append(f"{names[guess]} {float(sure[guess]):.0%}" + f"\n(asked: {names[number]})" * (guess != number))
    assert drawn["captions"] == expected
    right = sum("asked" not in caption for caption in expected)
    assert drawn["title"] == f"samples of petals: first guess and its probability; {right} of {len(expected)} as asked"


def test_a_clips_sheet_tells_the_nearest_name_and_colour(
    train: Callable[..., Path], class_run: Path, drawn: Drawn
) -> None:
    run = train("clip", "+experiment=flower_clip", "training.steps=1")
    sheets.sheet_of(run, lab.load(class_run), "petals")
    clip, names = load_clip(pretrained=str(run / "clip")), lab.load(class_run).conditioner.class_names
    vectors = clip.encode_images(first_of_seed_0(class_run))
    phrases = [class_prompts(name) for name in names]  # type: ignore[union-attr]
    nearest = (vectors @ phrase_vectors(clip, phrases).T).argmax(dim=1)
    captions = drawn["captions"]
    assert isinstance(captions, list) and len(captions) == len(nearest)
    for caption, number in zip(captions, nearest, strict=True):
        seen, _, rest = caption.partition(", ")
        assert seen == names[int(number)]  # type: ignore[index]
        assert rest.split("\n")[0] in sheets.COLOURS


def test_an_autoencoders_sheet_shows_each_row_above_what_comes_back(
    vae_run: Path, latent_run: Path, drawn: Drawn
) -> None:
    sheets.sheet_of(vae_run, lab.load(latent_run), "petals")
    images, width = drawn["images"], sheets.COLUMNS
    samples = first_of_seed_0(latent_run)
    assert isinstance(images, Tensor) and len(images) == 2 * len(samples)
    torch.testing.assert_close(images[:width], samples[:width])
    autoencoder = load_autoencoder(vae_run, "cpu")
    with torch.no_grad():
        back = autoencoder.decode(autoencoder.encode(samples)).clamp(-1, 1)
    torch.testing.assert_close(images[width : 2 * width], back[:width], rtol=0, atol=1e-4)
    decibels = 10 * (4 / (samples - back).square().mean(dim=(1, 2, 3))).log10()
    assert drawn["title"] == f"samples of petals, above what comes back; PSNR {decibels.mean():.2f} dB"


def test_a_clip_needs_names_to_choose_from(train: Callable[..., Path]) -> None:
    clip = train("clip", "+experiment=flower_clip", "training.steps=1")
    run = train("plain", "+experiment=class_cond", "conditioning=unconditional", "training.steps=1")
    with pytest.raises(LabError, match="pictures=plain: this run knows no classes"):
        sheets.sheet_of(clip, lab.load(run), "plain")
