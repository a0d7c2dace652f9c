"""How far pictures agree with what was asked for: to a CLIP, in colour, and in factors that are known."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lab.clip import Clip
from lab.clip.captions import class_prompts
from lab.clip.colours import COLOURS, dominant_colours
from lab.clip.retrieval import phrase_vectors
from lab.conditioning import ClipConditioner
from lab.data import ImageSet
from lab.evaluation.drawing import sampled
from lab.judging import Judge
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import to_uint8

AT_A_TIME = 128  # pictures looked at together
# The eight colours that flowers have, in sentences that are no training caption.
COLOUR_PROMPTS = {
    colour: f"one big blossom, coloured {colour}, in a garden"
    for colour in ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
}


def colours_in(text: str) -> set[str]:
    """The colours that a text names."""
    return set(re.findall(r"[a-z]+", text.lower())) & set(COLOURS)


def colour_in(prompt: str) -> str | None:
    """The colour that a prompt asks for; None where it names none or several."""
    named = colours_in(prompt)
    return named.pop() if len(named) == 1 else None


def share_of(colour: str, pixels: Tensor) -> float:
    """The share of pictures (N, H, W, 3) uint8 whose flower has that colour."""
    return float((dominant_colours(pixels) == COLOURS.index(colour)).float().mean())


class Similarity:
    """Cosines between pictures and phrases in a CLIP's space, -1 to 1."""

    def __init__(self, clip: Clip, phrases: Sequence[Sequence[str]]) -> None:
        self.clip, self.texts = clip, phrase_vectors(clip, phrases)

    def __call__(self, images: Tensor, which: Tensor) -> Tensor:
        """images (B, 3, H, W) in [-1, 1], which (B,) phrase each is compared with -> (B,)."""
        return (encoded(self.clip, images) * self.texts[which]).sum(dim=1)


def encoded(clip: Clip, images: Tensor) -> Tensor:
    """The vectors (N, D) of pictures (N, 3, H, W) in [-1, 1], some at a time."""
    return torch.cat([clip.encode_images(part).cpu() for part in images.split(AT_A_TIME)])


def factors_of_classes(images: ImageSet) -> dict[str, list[str]]:
    """By factor its value for each class, for a set whose factors are known and decided by the class; else {}."""
    if not images.factors or not images.class_names:
        return {}
    first = {int(label): number for number, label in reversed(list(enumerate(images.labels.tolist())))}
    if len(first) < len(images.class_names):
        return {}
    decided = {}
    for factor in images.factors[0]:
        values = [str(images.factors[first[label]][factor]) for label in range(len(images.class_names))]
        pairs = zip(images.factors, images.labels.tolist(), strict=True)
        if all(str(known[factor]) == values[label] for known, label in pairs):
            decided[factor] = values
    return decided


def factors_recovered(judge: Judge, images: Tensor, labels: Tensor, factors: dict[str, list[str]]) -> dict[str, float]:
    """By factor the share of pictures (N, 3, H, W) that the judge takes for a class with the value of theirs (N,)."""
    seen = torch.cat([judge.logits(part).argmax(dim=1) for part in images.split(AT_A_TIME)])
    pairs = list(zip(seen.tolist(), labels.tolist(), strict=True))
    return {
        factor: sum(values[found] == values[asked] for found, asked in pairs) / len(pairs)
        for factor, values in factors.items()
    }


def chance_of(values: Sequence[str]) -> float:
    """How often a class drawn at random has the value of another, by the values (C,) of all classes."""
    return sum(values.count(value) for value in values) / len(values) ** 2


def names_met(
    clip: Clip | None, images: torch.Tensor, classes: torch.Tensor, class_names: Sequence[str]
) -> dict[str, float]:
    """{"clip_similarity"} of pictures with the names of their classes; {} without classes or CLIP."""
    if clip is None or bool((classes < 0).any()):
        return {}
    similarity = Similarity(clip, [class_prompts(name) for name in class_names])
    return {"clip_similarity": float(similarity(images, classes).mean())}


def colours_shown(model: DiffusionModel, count: int, settings: Mapping[str, Any], parts: Parts) -> dict[str, float]:
    """{"colour_accuracy"} of `count` samples of each colour prompt; {} for a run that takes no prompts."""
    if not isinstance(model.conditioner, ClipConditioner) or count == 0:
        return {}
    which = torch.arange(len(COLOUR_PROMPTS)).repeat_interleave(count)
    condition = model.condition(list(COLOUR_PROMPTS.values()))
    pixels = sampled(model, condition, which, range(len(which)), settings, parts)
    shares = [share_of(colour, some) for colour, some in zip(COLOUR_PROMPTS, pixels.split(count), strict=True)]
    return {"colour_accuracy": sum(shares) / len(shares)}


def colours_found(clip: Clip | None, images: Tensor, count: int) -> dict[str, float]:
    """{"colour_accuracy"} of the `count` pictures that a CLIP finds first to each colour prompt; {} without it.

    Of real pictures (N, 3, H, W) in [-1, 1] it tells what the prompts mean to the CLIP alone.
    """
    if clip is None or count == 0:
        return {}
    texts = phrase_vectors(clip, [[prompt] for prompt in COLOUR_PROMPTS.values()])
    chosen = (texts @ encoded(clip, images).T).topk(min(count, len(images)), dim=1).indices
    pixels = [torch.from_numpy(to_uint8(images[some])) for some in chosen]
    shares = [share_of(colour, some) for colour, some in zip(COLOUR_PROMPTS, pixels, strict=True)]
    return {"colour_accuracy": sum(shares) / len(shares)}


def known_factors(
    judge: Judge, sides: Mapping[str, tuple[Tensor, Tensor]], train: ImageSet
) -> dict[str, dict[str, float]]:
    """By factor of the data's classes, where they are known: the share that is recovered, by side and by chance."""
    factors = factors_of_classes(train) if bool((sides["generated"][1] >= 0).all()) else {}
    found = {side: factors_recovered(judge, images, classes, factors) for side, (images, classes) in sides.items()}
    return {
        factor: {**{side: shares[factor] for side, shares in found.items()}, "chance": chance_of(values)}
        for factor, values in factors.items()
    }
