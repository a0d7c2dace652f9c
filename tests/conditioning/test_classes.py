"""Classes by name or number, and their learned vectors."""

from typing import Any

import pytest
import torch

from lab.conditioning import ClassEmbedding
from lab.conditioning.base import Request
from lab.conditioning.classes import class_index
from lab.data import Batch, ImageSet
from lab.errors import LabError

NAMES = ("pink primrose", "Siam tulip", "rose", "colt's foot", "daisy")


def image_set(class_names: tuple[str, ...] = NAMES) -> ImageSet:
    pixels = torch.zeros(6, 4, 4, 3, dtype=torch.uint8)
    return ImageSet("some", pixels, torch.tensor([0, 1, 2, 3, 4, 2]), class_names, 4, (), (), "0" * 16)


def message(name: Any, names: tuple[str, ...] = NAMES) -> str:
    with pytest.raises(LabError) as error:
        class_index(name, names)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- names and numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        ("rose", 2),
        ("ROSE", 2),
        (" rose ", 2),
        ("siam TULIP", 1),
        ("colt's foot", 3),
        (0, 0),
        (4, 4),
        ("4", 4),
    ],
)
def test_a_class_has_a_name_and_a_number(asked: str | int, number: int) -> None:
    assert class_index(asked, NAMES) == number


def test_a_string_is_a_name_before_it_is_a_number() -> None:
    """Folders are often called 0, 1, 2 and sorted as strings: 0, 1, 10, 2."""
    digits = ("0", "1", "10", "2")
    assert [class_index(name, digits) for name in digits] == [0, 1, 2, 3]
    assert class_index(2, digits) == 2
    assert class_index("3", digits) == 3


def test_letter_case_decides_where_it_must() -> None:
    names = ("Rose", "rose")
    assert [class_index(name, names) for name in names] == [0, 1]


@pytest.mark.parametrize("number", [-1, 5, "5", "-2"])
def test_numbers_beyond_the_classes_are_refused(number: int | str) -> None:
    assert message(number) == f"classes={number}: numbers go from 0 to 4"


@pytest.mark.parametrize(
    ("asked", "nearest"), [("siam tulips", "Siam tulip"), ("primrose", "pink primrose"), ("dasy", "daisy")]
)
def test_a_misspelt_name_gets_the_nearest_as_it_is_written(asked: str, nearest: str) -> None:
    assert message(asked).startswith(f"classes={asked}: no such class; nearest: {nearest}")


@pytest.mark.parametrize("odd", ["", "²", "--5", "1.5", "五"])
def test_odd_names_are_unknown_classes(odd: str) -> None:
    assert "no such class" in message(odd)


def test_a_set_without_classes_has_none_to_ask_for() -> None:
    for asked in ("rose", 0):
        assert message(asked, ()) == f"classes={asked}: the set that this run was trained on has no classes"


# -- the conditioner ---------------------------------------------------------------------------------


def prepared(dim: int = 6) -> ClassEmbedding:
    conditioner = ClassEmbedding(dim)
    conditioner.prepare(image_set(), "unused")
    return conditioner


def test_prepare_takes_the_classes_and_the_config_rebuilds_it() -> None:
    conditioner = ClassEmbedding(6, dropout=0.2)
    record = conditioner.prepare(image_set(), "unused")
    assert record == {"class_names": list(NAMES)}
    again = ClassEmbedding(6, dropout=0.2, **record)
    again.load_state_dict(conditioner.state_dict())
    labels = torch.tensor([0, 4, 2])
    assert torch.equal(again(labels).vector, conditioner(labels).vector)
    assert again.inputs(Request(classes=["daisy"])).tolist() == [4]


def test_each_class_and_the_null_have_a_row_of_their_own() -> None:
    conditioner = prepared()
    rows = conditioner(torch.arange(5)).vector
    null = conditioner.null(5).vector
    assert rows.shape == null.shape == (5, 6)
    assert torch.equal(rows, conditioner.embedding.weight[:5])
    assert torch.equal(null, conditioner.embedding.weight[5:].expand(5, 6))
    assert len({tuple(row.tolist()) for row in torch.cat([rows, null[:1]])}) == 6


def test_dropped_rows_become_the_null_and_no_others() -> None:
    conditioner = prepared()
    labels, drop = torch.tensor([2, 2, 0, 4]), torch.tensor([True, False, True, False])
    vector = conditioner(labels, drop).vector
    expected = torch.stack([conditioner.embedding.weight[i] for i in (5, 2, 5, 4)])
    assert torch.equal(vector, expected)


def test_the_null_is_learned() -> None:
    conditioner = prepared()
    conditioner(torch.tensor([1, 3]), torch.tensor([True, False])).vector.sum().backward()
    grad = conditioner.embedding.weight.grad
    assert grad is not None
    assert grad.abs().sum(dim=1).gt(0).tolist() == [False, False, False, True, False, True]


def test_training_inputs_are_the_labels() -> None:
    batch = image_set().batch(torch.tensor([5, 1]))
    assert isinstance(batch, Batch)
    assert prepared().training_inputs(batch, torch.zeros(2, 2)).tolist() == [2, 1]


def test_requests_by_class_or_by_a_prompt_that_is_one() -> None:
    conditioner = prepared()
    inputs = conditioner.inputs(Request(classes=["rose", 0, "SIAM tulip"]))
    assert inputs.dtype == torch.int64 and inputs.tolist() == [2, 0, 1]
    assert conditioner.inputs(Request(prompts=["Rose", " daisy "])).tolist() == [2, 4]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(prompts=["rose", "a red rose"]), "'a red rose' is no class: give classes="),
        (Request(prompts=["2"]), "'2' is no class"),
        (Request(images=["a.png"]), "give classes=[...], not images"),
        (Request(), "give classes=[names or numbers]"),
        (Request(classes=["rose", "nettle"]), "classes=nettle: no such class"),
    ],
)
def test_other_requests_say_what_would_be_right(request_: Request, words: str) -> None:
    with pytest.raises(LabError) as error:
        prepared().inputs(request_)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_set_without_classes_cannot_be_prepared() -> None:
    with pytest.raises(LabError, match="the set some has no classes; use conditioning=unconditional"):
        ClassEmbedding().prepare(image_set(()), "unused")


# -- tokens ------------------------------------------------------------------------------------------


def test_a_class_may_have_tokens_beside_its_vector() -> None:
    torch.manual_seed(0)
    conditioner = ClassEmbedding(4, tokens=3, class_names=("a", "b"))
    assert conditioner.token_dim == 4 and ClassEmbedding(4).token_dim == 0
    told = conditioner(torch.tensor([0, 1, 0]), torch.tensor([False, False, True]))
    assert told.vector.shape == (3, 4) and told.tokens is not None and told.tokens.shape == (3, 3, 4)
    assert not torch.equal(told.tokens[0], told.tokens[1])
    null = conditioner.null(2)
    assert null.tokens is not None
    assert torch.equal(told.tokens[2], null.tokens[0]) and torch.equal(told.vector[2], null.vector[1])
    with pytest.raises(LabError, match=r"conditioning\.tokens=-1: use 0 or more"):
        ClassEmbedding(4, tokens=-1)
