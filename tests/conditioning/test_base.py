"""What a request may be, what every conditioner does, and the empty one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lab.conditioning import Condition, Conditioner, Unconditional
from lab.conditioning.base import Request
from lab.data import Batch
from lab.errors import LabError


def message(**asked: Any) -> str:
    with pytest.raises(LabError) as error:
        Request(**asked)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_labels_name_each_asked_sample() -> None:
    assert Request(prompts=["a red rose", "a tulip"]).labels == ["a red rose", "a tulip"]
    assert Request(classes=["rose", 3]).labels == ["rose", "3"]
    assert Request(images=[Path("somewhere/rose.jpg")]).labels == ["rose.jpg"]
    assert Request().labels == []


def test_only_one_kind_of_request_at_a_time() -> None:
    assert message(prompts=["a rose"], classes=["rose"]) == "prompts and classes are given together: use one of them"
    assert message(classes=[1], images=["a.png"]).startswith("classes and images are given together")


@pytest.mark.parametrize("kind", ["prompts", "classes", "images"])
def test_an_empty_list_is_not_no_request(kind: str) -> None:
    assert message(**{kind: []}) == f"{kind}=[]: name at least one"


def test_a_single_value_is_not_taken_apart() -> None:
    """A bare string would be a prompt for each of its letters."""
    assert message(prompts="a rose") == "prompts=a rose: give a list, prompts=[...]"
    assert message(classes=3) == "classes=3: give a list, classes=[...]"
    assert message(images=Path("rose.png")) == "images=rose.png: give a list, images=[...]"
    assert "give a list" in message(images=Image.new("RGB", (4, 4)))


def test_a_prompt_is_a_text() -> None:
    assert message(prompts=["a rose", 3]).startswith("prompts=[3]: a prompt is a text")


def condition(rows: int, tokens: bool, value: float = 0.0) -> Condition:
    return Condition(torch.full((rows, 3), value), torch.full((rows, 5, 2), value) if tokens else None)


@pytest.mark.parametrize("tokens", [False, True])
def test_conditions_are_taken_and_put_together_row_by_row(tokens: bool) -> None:
    one, other = condition(4, tokens, 1.0), condition(4, tokens, 2.0)
    assert len(one) == 4 and len(one[torch.tensor([0, 2])]) == len(one[:2]) == 2
    assert Condition.cat(one, other[:1]).vector[:, 0].tolist() == [1, 1, 1, 1, 2]
    mixed = Condition.where(torch.tensor([True, False, True, False]), one, other)
    assert mixed.vector[:, 0].tolist() == [1, 2, 1, 2]
    for whole in (mixed, Condition.cat(one, other), one[:2], one.map(torch.neg)):
        assert (whole.tokens is not None) == tokens
    if tokens:
        assert mixed.tokens is not None and mixed.tokens[:, 0, 0].tolist() == [1, 2, 1, 2]


class Doubled(Conditioner):
    """The least that a conditioner must be."""

    def __init__(self, dropout: float = 0.25) -> None:
        super().__init__(dim=2, dropout=dropout)

    def training_inputs(self, batch: Batch, uniform: Tensor) -> Tensor:
        return batch.labels[:, None].float()

    def inputs(self, request: Request) -> Tensor:
        return torch.tensor(request.classes)[:, None].float()

    def forward(self, inputs: Tensor, drop: Tensor | None = None) -> Condition:
        drop = torch.zeros(len(inputs), dtype=torch.bool) if drop is None else drop
        return Condition(torch.where(drop[:, None], torch.full_like(inputs, -1), 2 * inputs))

    def null(self, count: int) -> Condition:
        return Condition(-torch.ones(count, 2))


@pytest.mark.parametrize("missing", ["training_inputs", "inputs", "forward", "null"])
def test_an_incomplete_conditioner_is_refused_when_it_is_built(missing: str) -> None:
    incomplete = type("Incomplete", (Doubled,), {missing: getattr(Conditioner, missing)})
    with pytest.raises(TypeError, match=missing):
        incomplete()


@pytest.mark.parametrize("dropout", [-0.1, 1.5, float("nan")])
def test_dropout_is_a_share(dropout: float) -> None:
    with pytest.raises(LabError, match=r"conditioning.dropout=.*: use a share from 0 to 1"):
        Doubled(dropout)


def test_unconditional_takes_nothing_and_says_so() -> None:
    conditioner = Unconditional()
    assert (conditioner.dim, conditioner.dropout, list(conditioner.parameters())) == (0, 0.0, [])
    inputs = conditioner.inputs(Request())
    assert inputs.shape == (1, 0)
    assert conditioner(inputs).vector.shape == conditioner.null(1).vector.shape == (1, 0)
    batch = Batch(torch.zeros(5, 3, 2, 2), torch.full((5,), -1), torch.arange(5))
    assert conditioner.training_inputs(batch, torch.zeros(5, 2)).shape == (5, 0)
    for request in (Request(prompts=["a rose"]), Request(classes=[0]), Request(images=["a.png"])):
        with pytest.raises(LabError, match="this run is unconditional: ask for count=N samples"):
            conditioner.inputs(request)


# -- choices -----------------------------------------------------------------------------------------


def several(rows: int, count: int) -> Condition:
    """Row i's choices are 10 i + 1, 10 i + 2, ..., its vector 10 i."""
    tens = 10.0 * torch.arange(rows)
    return Condition(tens[:, None], choices=(tens[:, None] + 1 + torch.arange(count))[..., None])


def test_seed_and_number_choose() -> None:
    numbers = list(range(200))
    one = several(200, 4)
    chosen = one.chosen(0, numbers)
    assert chosen.choices is None
    which = chosen.vector[:, 0] - one.vector[:, 0]
    assert [int((which == k).sum()) > 30 for k in (1, 2, 3, 4)] == [True] * 4 and len(which.unique()) == 4
    assert torch.equal(one[torch.tensor([7, 3])].chosen(0, [7, 3]).vector, chosen.vector[[7, 3]])  # alone as together
    assert not torch.equal(one.chosen(1, numbers).vector, chosen.vector)
    same = one.chosen(0, [5] * 200).vector - one.vector
    assert len(same.unique()) == 1


def test_without_choices_there_is_nothing_to_choose() -> None:
    plain = Condition(torch.ones(2, 1))
    assert plain.chosen(0, [0, 1]) is plain


def test_choices_go_where_their_rows_go() -> None:
    one, plain = several(2, 3), Condition(torch.full((2, 1), 7.0))
    joined = Condition.cat(one, plain)
    assert joined.choices is not None
    assert joined.choices[..., 0].tolist() == [[1, 2, 3], [11, 12, 13], [7, 7, 7], [7, 7, 7]]
    mixed = Condition.where(torch.tensor([False, True]), one, plain)
    assert mixed.choices is not None and mixed.choices[..., 0].tolist() == [[7, 7, 7], [11, 12, 13]]
    negative = one[1:].map(torch.neg)
    assert negative.choices is not None and negative.choices[..., 0].tolist() == [[-11, -12, -13]]
