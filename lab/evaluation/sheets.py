"""What an autoencoder, a CLIP or a judge makes of generated pictures, on sheets that no photograph is on."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lab.clip import Clip, load_clip
from lab.clip.captions import class_prompts, fact_prompts
from lab.clip.colours import COLOURS
from lab.clip.retrieval import phrase_vectors
from lab.errors import LabError
from lab.evaluation.agreement import encoded
from lab.evaluators import trained_by
from lab.judging import Judge, load_judge
from lab.model import DiffusionModel
from lab.quality import psnr
from lab.render import grid
from lab.runs import load_autoencoder, read_config
from lab.there_and_back import COLUMNS, pairs, there_and_back

SHOWN = 24  # samples on a sheet
Seen = tuple[list[str], list[str]]  # what each picture is taken for, and a caption that says so


def sheet_of(run: Path, model: DiffusionModel, name: str) -> Image.Image:
    """What the run of an autoencoder, a CLIP or a judge makes of samples of the diffusion model called `name`.

    The samples are the first of seed 0 of classes evenly spread, at the model's default sampler and guidance. Of an
    autoencoder what goes in, above what comes back; of a judge its first guess with the probability; of a CLIP the
    class name and the colour that are nearest. Where another class is seen than was asked for, both are told.
    Raises LabError where the run holds nothing sound, and for a CLIP where the model knows no classes.
    """
    task, names = read_config(run).task, tuple(getattr(model.conditioner, "class_names", ()))
    if task == "flower_clip" and not names:
        raise LabError(f"pictures={name}: this run knows no classes, among whose names a CLIP would find one")
    asked = evenly(len(names), SHOWN)
    samples = model.sample(classes=asked or None, count=1 if asked else SHOWN, output="tensor")
    assert isinstance(samples, Tensor)
    if task == "autoencoder":
        [(given, back)] = there_and_back(load_autoencoder(run, model.device), [samples])
        told = f"PSNR {psnr(given, back).mean():.2f} dB"
        return pairs(given, back, f"samples of {name}, above what comes back; {told}")
    if task == "judge":
        seen, captions = guessed(load_judge(trained_by(run, task)), samples.cpu())
        title = f"samples of {name}: first guess and its probability"
    else:
        seen, captions = nearest_words(load_clip(pretrained=str(trained_by(run, task))), samples.cpu(), names)
        title = f"samples of {name}: nearest class name and colour"
    if asked:
        wanted = [names[number] for number in asked]
        wrong = [one != other for one, other in zip(seen, wanted, strict=True)]
        notes = [f"\n(asked: {other})" if differs else "" for other, differs in zip(wanted, wrong, strict=True)]
        captions = [caption + note for caption, note in zip(captions, notes, strict=True)]
        title += f"; {wrong.count(False)} of {len(wrong)} as asked"
    return grid(samples, captions=captions, columns=COLUMNS, title=title)


def evenly(total: int, count: int) -> list[int]:
    """`count` of the numbers below `total`, evenly spread, both ends among them; all where there are no more."""
    return [int(number) for number in torch.linspace(0, total - 1, min(count, total)).round()]


def guessed(judge: Judge, images: Tensor) -> Seen:
    """What a judge takes pictures (B, 3, H, W) for, and how sure it is."""
    sure, guess = judge.logits(images).softmax(dim=1).max(dim=1)
    seen = [judge.class_names[number] for number in guess.tolist()]
    return seen, [f"{name} {share:.0%}" for name, share in zip(seen, sure.tolist(), strict=True)]


def nearest_words(clip: Clip, images: Tensor, names: Sequence[str]) -> Seen:
    """Which of these names is nearest to each of the pictures (B, 3, H, W) for a CLIP, and which colour."""
    by_name = _nearest(clip, images, [class_prompts(name) for name in names])
    by_colour = _nearest(clip, images, [fact_prompts("colour", colour) for colour in COLOURS])
    seen = [names[number] for number in by_name]
    return seen, [f"{name}, {COLOURS[colour]}" for name, colour in zip(seen, by_colour, strict=True)]


def _nearest(clip: Clip, images: Tensor, phrases: Sequence[Sequence[str]]) -> list[int]:
    similarity = encoded(clip, images) @ phrase_vectors(clip, phrases).T
    return [int(number) for number in similarity.argmax(dim=1)]
