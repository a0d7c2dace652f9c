"""Captions made from what is known of each image, and which caption is true of which image.

What is known are facts: the class name, the true factors of a painted flower, else the measured colour. A
caption states some of the facts of the image it was made for, and is true of every image that shares those. A
batch holds many such images, so the contrastive loss takes its targets from here and calls none a negative.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import overload

import torch
from torch import Tensor

from lab.clip.colours import COLOURS, dominant_colours
from lab.data import ImageSet

# The fields of a template are the facts that it states.
NAMED = (
    "a photo of a {name}, a type of flower",
    "a photo of a {name}",
    "a close-up of a {name}",
    "a {name} flower",
    "a {name} in bloom",
    "a {name}",
    "{name}",
)
COLOURED = (
    "a {colour} flower",
    "a photo of a {colour} flower",
    "a flower with {colour} petals",
    "{colour} flowers",
    "a close-up of a {colour} flower",
    "a {colour} blossom",
)
NAMED_AND_COLOURED = (
    "a photo of a {colour} {name}, a type of flower",
    "a photo of a {colour} {name}",
    "a {colour} {name}",
    "a {name} with {colour} petals",
    "a {colour} {name} flower",
)
PAINTED = (
    "a {petal_colour} flower",
    "a photo of a {petal_colour} flower",
    "a flower with {petal_count} petals",
    "a {petal_colour} flower with {petal_count} petals",
    "a flower with {petal_count} {petal_colour} petals",
)
OWN = ("{caption}",)


class Wordings(Sequence[str]):
    """Templates made of parts, one of each, separated by spaces; an empty part is left out.

    They are counted, not kept: the last part changes with each index, the first one most slowly.
    """

    def __init__(self, *parts: tuple[str, ...]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return math.prod(len(part) for part in self.parts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        rest, chosen = range(len(self))[index], []
        for part in reversed(self.parts):
            rest, which = divmod(rest, len(part))
            chosen.append(part[which])
        return " ".join(filter(None, reversed(chosen))).replace(" ,", ",")


# Words that say nothing about the flower: who learns to pass over these passes over others as well.
OPENINGS = (
    "",
    "",
    "a photo of",
    "a picture of",
    "a photograph of",
    "an image of",
    "a close-up of",
    "a macro shot of",
    "a detailed view of",
    "a snapshot of",
    "here is",
    "this is",
    "look at",
    "we see",
    "it shows",
    "i found",
)
KINDS_OF = (
    "a",
    "a",
    "the",
    "this",
    "a single",
    "a beautiful",
    "a pretty",
    "a lovely",
    "a fresh",
    "a small",
    "a large",
    "a tiny",
    "a fine",
    "my favourite",
)
ENDINGS = (
    "",
    "",
    "",
    "in bloom",
    "in full bloom",
    "up close",
    "outdoors",
    "in the sun",
    "in summer",
    "after the rain",
    "among leaves",
    "by the path",
    "in a park",
    "on a meadow",
    "today",
    ", taken with a camera",
    ", seen from the front",
    ", a kind of plant",
)
NAMED_SO = (
    "{name}",
    "{name}",
    "{name} flower",
    "{name} blossom",
    "{name} plant",
    "flower called {name}",
    "flower of the kind {name}",
)
COLOURED_SO = (
    "{colour} flower",
    "{colour} flower",
    "{colour} blossom",
    "{colour} bloom",
    "flower with {colour} petals",
    "flower that is {colour}",
    "flower whose petals are {colour}",
    "blossom in {colour}",
)
NAMED_AND_COLOURED_SO = (
    "{colour} {name}",
    "{colour} {name}",
    "{colour} {name} flower",
    "{colour} {name} blossom",
    "{name} with {colour} petals",
    "{name} that is {colour}",
    "{name} whose petals are {colour}",
    "{name} in {colour}",
)
# Each of these kinds in some twenty thousand sentences.
VARIED = {
    templates: Wordings(OPENINGS, KINDS_OF, cores, ENDINGS)
    for templates, cores in ((NAMED, NAMED_SO), (COLOURED, COLOURED_SO), (NAMED_AND_COLOURED, NAMED_AND_COLOURED_SO))
}
VARIED_SHARE = 0.75  # of these captions: the others are in the words that `class_prompts` asks in
NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


@dataclass(frozen=True)
class Captions:
    """One caption an image."""

    texts: tuple[str, ...]  # B
    stated: Tensor  # (B, F) bool, the facts that each one states


class CaptionMaker:
    """The facts of an image set, and captions that state some of them.

    varied     whether names and colours are said in tens of thousands of sentences, for who learns to hear; else in few
    fields     names of the F facts
    codes      (N, F) int64, equal where two images share a fact
    """

    def __init__(self, image_set: ImageSet, varied: bool = False) -> None:
        self.varied = VARIED if varied else {}
        facts = _facts(image_set)
        self.fields = tuple(facts)
        self.codes = torch.stack([_codes(values) for values in facts.values()], dim=1)
        self.words = {field: [_words(value) for value in values] for field, values in facts.items()}
        self.facts = facts | ({"caption": image_set.captions} if image_set.captions else {})
        # Own captions count double: they are the ones that somebody wrote for these images.
        kinds = (OWN, OWN, PAINTED, NAMED, COLOURED, NAMED_AND_COLOURED)
        self.kinds = [kind for kind in kinds if set(_fields(kind[0])) <= set(self.facts)]

    def draw(self, indices: Tensor, generator: torch.Generator) -> Captions:
        """A random caption for each of the images (B,), a function of generator and indices."""
        return self.say(indices, torch.rand(len(indices), 2, generator=generator, dtype=torch.float64))

    def say(self, indices: Tensor, uniform: Tensor) -> Captions:
        """The caption of each image (B,) that numbers (B, 2) in [0, 1) choose."""
        pairs = [self._caption(i, *u) for i, u in zip(indices.tolist(), uniform.tolist(), strict=True)]
        return Captions(tuple(text for text, _ in pairs), torch.tensor([stated for _, stated in pairs]))

    def truth(self, indices: Tensor, captions: Captions) -> Tensor:
        """(B, B) bool: entry [i, j] says whether caption j is true of image `indices[i]`."""
        codes = self.codes[indices]
        same = codes[:, None] == codes[None]  # (B, B, F)
        return (same | ~captions.stated[None]).all(dim=2)

    def _caption(self, image: int, kind: float, which: float) -> tuple[str, list[bool]]:
        templates: Sequence[str] = self.kinds[int(kind * len(self.kinds))]
        if templates is NAMED_AND_COLOURED and self.words["name"][image] & set(COLOURS):
            templates = NAMED  # no "white pink primrose"
        if templates in self.varied:
            varied = which < VARIED_SHARE
            which = which / VARIED_SHARE if varied else (which - VARIED_SHARE) / (1 - VARIED_SHARE)
            templates = self.varied[templates] if varied else templates
        template = templates[int(which * len(templates))]
        fields = _fields(template)
        text = with_articles(template.format(**{field: self.facts[field][image] for field in fields}))
        if templates is OWN and "caption" not in self.fields:
            said = _words(text)
            return text, [field != "name" and self.words[field][image] <= said for field in self.fields]
        return text, [field in fields for field in self.fields]


def with_articles(text: str) -> str:
    """ "a" turned into "an" where a vowel follows."""
    return re.sub(r"\b([Aa])(?= [aeiouAEIOU])", r"\1n", text)


def class_prompts(name: str) -> list[str]:
    """Captions that state a class name and nothing else, the plain ones: in whose words prompts ask."""
    return [with_articles(template.format(name=_plain(name))) for template in NAMED]


def fact_prompts(field: str, value: str) -> list[str]:
    """The plain captions that state this colour or petal count and nothing else; none for other facts."""
    return [with_articles(t.format(**{field: value})) for t in COLOURED + PAINTED if _fields(t) == [field]]


def _facts(image_set: ImageSet) -> dict[str, tuple[str, ...]]:
    """Name of a fact -> its value for each of the N images."""
    facts: dict[str, tuple[str, ...]] = {}
    if image_set.class_names:
        facts["name"] = tuple(_plain(image_set.class_names[label]) for label in image_set.labels.tolist())
    if image_set.factors:
        return facts | {key: tuple(_spell(f[key]) for f in image_set.factors) for key in image_set.factors[0]}
    if image_set.captions:
        return facts | {"caption": image_set.captions}
    colours = dominant_colours(image_set.pixels).tolist()
    return facts | {"colour": tuple(COLOURS[colour] for colour in colours)}


def _codes(values: tuple[str, ...]) -> Tensor:
    known = {value: code for code, value in enumerate(dict.fromkeys(values))}
    return torch.tensor([known[value] for value in values])


def _fields(template: str) -> list[str]:
    return [field for _, field, _, _ in Formatter().parse(template) if field]


def _spell(value: object) -> str:
    return NUMBERS[value] if isinstance(value, int) and 0 <= value < len(NUMBERS) else str(value)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))


def _plain(name: str) -> str:
    """A class name without the question mark that marks a doubtful one."""
    return name.rstrip("?")
