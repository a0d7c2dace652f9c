"""Agreement with what was asked for: colours, names, and factors that are known."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lab.clip.captions import COLOURED
from lab.clip.colours import PROTOTYPES
from lab.conditioning import ClipVector
from lab.data import ImageSet
from lab.evaluation import agreement
from lab.evaluation.agreement import (
    COLOUR_PROMPTS,
    Similarity,
    chance_of,
    colour_in,
    colours_found,
    colours_shown,
    factors_of_classes,
    factors_recovered,
    known_factors,
    names_met,
    share_of,
)
from lab.judging import Judge, JudgeNetwork
from lab.parts import Parts
from lab.render import from_uint8

NAMES = ("three red", "five red", "three blue")
FACTORS = ({"count": 3, "colour": "red"}, {"count": 5, "colour": "red"}, {"count": 3, "colour": "blue"})


def image_set(labels: list[int], **more: object) -> ImageSet:
    factors = tuple({**FACTORS[label], **dict.fromkeys(more, number)} for number, label in enumerate(labels))
    pixels = torch.zeros(len(labels), 4, 4, 3, dtype=torch.uint8)
    return ImageSet("some", pixels, torch.tensor(labels), NAMES, 4, (), factors, "0" * 16)


class Brightness(JudgeNetwork):
    """Dark pictures are class 0, grey ones class 1, bright ones class 2."""

    def forward(self, images: Tensor) -> Tensor:
        return -(images.mean(dim=(1, 2, 3))[:, None] - torch.tensor([-1.0, 0.0, 1.0])).abs()


def test_the_colour_of_a_prompt_is_the_one_it_names() -> None:
    assert colour_in("A Red rose") == "red"
    assert colour_in("a red and white rose") is None and colour_in("a scarred bud") is None


def test_a_share_counts_pictures_of_the_colour() -> None:
    pixels = torch.tensor([[230, 10, 20], [250, 220, 20]], dtype=torch.uint8)[:, None, None].expand(2, 16, 16, 3)
    assert (share_of("red", pixels), share_of("blue", pixels)) == (0.5, 0.0)


def test_colour_prompts_are_unknown_to_training() -> None:
    assert [colour_in(prompt) for prompt in COLOUR_PROMPTS.values()] == list(COLOUR_PROMPTS)
    said = {template.format(colour=colour) for template in COLOURED for colour in COLOUR_PROMPTS}
    assert not said & set(COLOUR_PROMPTS.values())


def test_factors_that_the_class_decides_are_found() -> None:
    assert factors_of_classes(image_set([2, 0, 1, 0])) == {"count": ["3", "5", "3"], "colour": ["red", "red", "blue"]}
    assert "size" not in factors_of_classes(image_set([2, 0, 1, 0], size=None))  # another for each picture
    assert factors_of_classes(image_set([0, 1])) == {}  # nothing is known of the third class


def test_a_factor_is_recovered_where_the_class_seen_shares_it() -> None:
    judge = Judge(Brightness(3), NAMES, 4, {})
    images = torch.tensor([-1.0, 0.0, 1.0])[:, None, None, None].expand(3, 3, 4, 4)  # seen as 0, 1, 2
    factors = factors_of_classes(image_set([0, 1, 2]))
    assert factors_recovered(judge, images, torch.tensor([0, 1, 2]), factors) == {"count": 1.0, "colour": 1.0}
    found = factors_recovered(judge, images, torch.tensor([0, 0, 0]), factors)
    assert found == pytest.approx({"count": 2 / 3, "colour": 2 / 3})


def test_chance_is_how_often_two_classes_agree() -> None:
    assert chance_of(["red", "red", "blue", "red"]) == pytest.approx((9 + 1) / 16)


def test_similarity_is_the_cosine_with_the_classes_name() -> None:
    class Fake:
        def encode_text(self, prompts: list[str]) -> Tensor:
            return torch.eye(2)[[int("blue" in prompt) for prompt in prompts]]

        def encode_images(self, images: Tensor) -> Tensor:
            return torch.stack([torch.tensor([0.6, 0.8])] * len(images))

    similarity = Similarity(Fake(), [["a rose"], ["a blue iris"]])  # type: ignore[arg-type]
    assert similarity(torch.zeros(3, 3, 4, 4), torch.tensor([0, 0, 1])).tolist() == pytest.approx([0.6, 0.6, 0.8])


def test_colours_of_real_pictures_are_of_those_that_the_clip_finds_first() -> None:
    """A CLIP that reads colours finds them; one for which all prompts mean blue finds blue ones to each."""
    colours = {"red": (230, 10, 20), "yellow": (250, 220, 20), "blue": (20, 30, 230), "white": (250, 250, 250)}
    pixels = torch.tensor([colours[name] for name in colours for _ in range(4)], dtype=torch.uint8)
    images = from_uint8(pixels[:, None, None].expand(16, 16, 16, 3))

    class Fake:
        def __init__(self, meaning: dict[str, str]) -> None:
            self.meaning = meaning

        def encode_text(self, prompts: list[str]) -> Tensor:
            words = [self.meaning.get(str(colour_in(prompt)), "none") for prompt in prompts]
            return torch.tensor([[float(word == name) for name in colours] for word in words]) + 1e-6

        def encode_images(self, images: Tensor) -> Tensor:
            nearest = torch.cdist(images.mean(dim=(2, 3)), from_uint8(TABLE)[:, :, 0, 0]).argmin(dim=1)
            return torch.eye(4)[nearest]

    TABLE = torch.tensor(list(colours.values()), dtype=torch.uint8)[:, None, None]
    reads = Fake({name: name for name in colours})
    assert colours_found(reads, images, 2)["colour_accuracy"] == 4 / 8  # of the eight colours four are there
    assert colours_found(Fake(dict.fromkeys(COLOUR_PROMPTS, "blue")), images, 2)["colour_accuracy"] == 1 / 8
    assert colours_found(reads, images, 99)["colour_accuracy"] == pytest.approx(0.25 * 4 / 8)
    assert colours_found(None, images, 2) == colours_found(reads, images, 0) == {}


def test_names_are_met_as_far_as_each_picture_is_like_the_name_of_its_class() -> None:
    class Fake:
        def encode_text(self, prompts: list[str]) -> Tensor:
            return torch.eye(2)[[int("iris" in prompt) for prompt in prompts]]

        def encode_images(self, images: Tensor) -> Tensor:
            return torch.stack([torch.tensor([0.6, 0.8])] * len(images))

    images, clip = torch.zeros(3, 3, 4, 4), Fake()
    found = names_met(clip, images, torch.tensor([1, 0, 1]), ("rose", "iris"))  # type: ignore[arg-type]
    assert found == {"clip_similarity": pytest.approx((0.8 + 0.6 + 0.8) / 3)}
    assert names_met(None, images, torch.tensor([1, 0, 1]), ("rose", "iris")) == {}
    assert names_met(clip, images, torch.tensor([1, -1, 1]), ("rose", "iris")) == {}  # type: ignore[arg-type]


def test_colours_shown_are_those_of_each_prompts_own_samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first of two samples has the colour of its prompt, the second that of the next prompt."""

    def sampled(model: object, condition: list[str], which: Tensor, *rest: object) -> Tensor:
        colours = [str(colour_in(prompt)) for prompt in condition]
        order = [(int(prompt) + number % 2) % len(colours) for number, prompt in enumerate(which)]
        rgb = [tuple(bytes.fromhex(PROTOTYPES[colours[place]][0])) for place in order]
        return torch.tensor(rgb, dtype=torch.uint8)[:, None, None].expand(-1, 16, 16, 3)

    monkeypatch.setattr(agreement, "sampled", sampled)
    model: Any = SimpleNamespace(conditioner=ClipVector(), condition=list)
    assert colours_shown(model, 2, {}, Parts(tmp_path, {})) == {"colour_accuracy": 0.5}
    assert colours_shown(model, 1, {}, Parts(tmp_path, {})) == {"colour_accuracy": 0.5}  # of eight, every second one
    assert colours_shown(model, 0, {}, Parts(tmp_path, {})) == {}
    model.conditioner = None
    assert colours_shown(model, 2, {}, Parts(tmp_path, {})) == {}


def test_known_factors_are_told_by_side_and_by_chance() -> None:
    judge = Judge(Brightness(3), NAMES, 4, {})
    images = torch.tensor([-1.0, 0.0, 1.0])[:, None, None, None].expand(3, 3, 4, 4)  # seen as 0, 1, 2
    sides = {"generated": (images, torch.tensor([0, 0, 0])), "real": (images, torch.tensor([0, 1, 2]))}
    found = known_factors(judge, sides, image_set([0, 1, 2]))
    told = {"generated": pytest.approx(2 / 3), "real": 1.0, "chance": pytest.approx(5 / 9)}
    assert found == {"count": told, "colour": told}
    unasked = {**sides, "generated": (images, torch.tensor([0, -1, 0]))}
    assert known_factors(judge, unasked, image_set([0, 1, 2])) == {}
