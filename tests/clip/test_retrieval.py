from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lab.clip import Clip, retrieval
from lab.data import ImageSet

COLOURS = ("red", "yellow", "blue", "white", "pink", "purple")


class Oracle(Clip):
    """Knows an image by its mean colour and a sentence by the last colour word in it."""

    def __init__(self, known: dict[str, Tensor]) -> None:
        self.known = known
        self.model, self.dim, self.name = torch.nn.Linear(1, 1), 3, "oracle"

    def encode_images(self, images: Tensor) -> Tensor:
        return normalize(images[:, :, 8:24, 8:24].mean(dim=(2, 3)), dim=1)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        words = [
            [self.known[word] for word in prompt.replace(",", "").split() if word in self.known] for prompt in prompts
        ]
        return normalize(torch.stack([known[-1] if known else torch.ones(3) for known in words]), dim=1)


@pytest.fixture
def oracle(rgb: dict[str, tuple[int, int, int]]) -> Oracle:
    return Oracle({colour: torch.tensor(rgb[colour]) / 127.5 - 1 for colour in COLOURS})


def test_right_answers_count(oracle: Oracle, make_set: Callable[..., ImageSet]) -> None:
    """Three of the images bear their own colour's name; the others are mislabelled."""
    held_out = make_set(["red", "yellow", "blue", "white", "pink", "purple"], [0, 1, 2, 4, 5, 3], COLOURS)
    found = retrieval(oracle, held_out)
    assert found["top1"] == 0.5
    assert 0.5 <= found["top5"] <= 1
    assert found["colour_top1"] == 1.0


def test_top5_is_certain_among_five_names(oracle: Oracle, make_set: Callable[..., ImageSet]) -> None:
    held_out = make_set(["red", "yellow", "blue"], [1, 2, 0], COLOURS[:3])
    assert retrieval(oracle, held_out) == {"top1": 0.0, "top5": 1.0, "colour_top1": 1.0}


def test_true_factors_are_asked_for_one_by_one(oracle: Oracle, make_set: Callable[..., ImageSet]) -> None:
    colours = ["red", "yellow", "blue", "blue"]
    factors = [
        {"petal_colour": c, "petal_count": n}
        for c, n in zip(["red", "yellow", "blue", "red"], [3, 5, 3, 3], strict=True)
    ]
    found = retrieval(oracle, make_set(colours, [0, 1, 2, 2], COLOURS[:3], ["a"] * 4, factors))
    assert found["top1"] == 1.0 and found["petal_colour_top1"] == 0.75
    assert found["petal_count_top1"] == 0.25  # the oracle cannot count and takes the first value, "five"


def test_a_set_without_classes_has_no_name_retrieval(oracle: Oracle, make_set: Callable[..., ImageSet]) -> None:
    assert retrieval(oracle, make_set(["red", "yellow"])) == {"colour_top1": 1.0}
