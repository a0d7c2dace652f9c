"""Words of captions as conditions, with a stand-in for the CLIP model."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lab.clip.captions import class_prompts
from lab.conditioning import ClipTokens
from lab.conditioning import clip as clip_module
from lab.conditioning.base import Request
from lab.data import ImageSet
from lab.errors import LabError

NAMES = ("rose", "artichoke?")
N, DIM, WIDTH, LENGTH = 40, 6, 5, 3


class FakeClip:
    """Sentences to numbers of their own."""

    name, fingerprint, whole = "fake", "f" * 16, None

    def __init__(self) -> None:
        self.asked: list[str] = []

    def to(self, device: torch.device) -> "FakeClip":
        return self

    def encode_tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        self.asked += prompts
        draws = [torch.Generator().manual_seed(hashlib.sha256(p.encode()).digest()[0]) for p in prompts]
        vectors = torch.stack([torch.randn(DIM, generator=draw) for draw in draws])
        tokens = torch.stack([4 + 3 * torch.randn(LENGTH, WIDTH, generator=draw) for draw in draws])
        return normalize(vectors, dim=1), tokens


def image_set() -> ImageSet:
    captions = tuple(f"flower number {i}" for i in range(N))
    pixels = torch.zeros(N, 4, 4, 3, dtype=torch.uint8)
    return ImageSet("some", pixels, torch.arange(N) % 2, NAMES, 4, captions, (), "0" * 16)


@pytest.fixture
def clip(monkeypatch: pytest.MonkeyPatch) -> FakeClip:
    fake = FakeClip()
    monkeypatch.setattr(clip_module, "load_clip", lambda model, pretrained: fake)
    return fake


@pytest.fixture
def prepared(clip: FakeClip, tmp_path: Path) -> ClipTokens:
    conditioner = ClipTokens()
    conditioner.prepare(image_set(), str(tmp_path))
    return conditioner


def test_vector_and_tokens_are_standardised_over_captions(prepared: ClipTokens) -> None:
    draw = torch.Generator().manual_seed(1)
    batch = image_set().batch(torch.randint(N, (600,), generator=draw))
    told = prepared(prepared.training_inputs(batch, torch.rand(600, 2, generator=draw)))
    assert told.tokens is not None
    assert told.vector.shape == (600, DIM) and told.tokens.shape == (600, LENGTH, WIDTH)
    for part in (told.vector, told.tokens):
        assert float(part.mean().abs()) < 0.1
        assert float(part.std()) == pytest.approx(1, abs=0.1)
    assert (prepared.dim, prepared.token_dim) == (DIM, WIDTH)


def test_what_is_drawn_decides_the_caption(prepared: ClipTokens) -> None:
    batch = image_set().batch(torch.zeros(2, dtype=torch.int64))
    same, other = torch.tensor([[0.1, 0.2]] * 2), torch.tensor([[0.1, 0.2], [0.9, 0.9]])
    rows = prepared.training_inputs(batch, same)
    assert torch.equal(rows[0], rows[1])
    rows = prepared.training_inputs(batch, other)
    assert not torch.equal(rows[0], rows[1])


def test_a_sentence_is_encoded_once(prepared: ClipTokens, clip: FakeClip) -> None:
    clip.asked.clear()
    one = prepared.inputs(Request(prompts=["a rose", "a rose", "a daisy"]))
    assert torch.equal(one[0], one[1]) and not torch.equal(one[0], one[2])
    prepared.inputs(Request(prompts=["a daisy"]))
    assert clip.asked == ["a rose", "a daisy"]


def test_what_is_remembered_is_bounded(prepared: ClipTokens, clip: FakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.conditioning.clip_tokens.KEPT", 2 * 2 * (DIM + LENGTH * WIDTH))  # two captions
    clip.asked.clear()
    for prompts in (["a", "b"], ["a", "c"], ["c", "b"]):
        assert prepared.inputs(Request(prompts=prompts)).shape[0] == len(prompts)
    assert clip.asked == ["a", "b", "c", "b"]


def test_classes_are_asked_for_by_a_sentence(prepared: ClipTokens) -> None:
    """As training says it: without the mark of a doubtful name, and with the right article."""
    sentence = prepared.inputs(Request(prompts=class_prompts("artichoke?")[:1]))
    assert "an artichoke" in class_prompts("artichoke?")[0]
    assert torch.equal(prepared.inputs(Request(classes=["artichoke?"])), sentence)
    assert torch.equal(prepared.inputs(Request(classes=[1])), sentence)


def test_dropped_rows_become_the_learned_null(prepared: ClipTokens) -> None:
    with torch.no_grad():
        prepared.null_row.uniform_()
    inputs = prepared.inputs(Request(prompts=["a rose", "a daisy"]))
    told, null = prepared(inputs, torch.tensor([True, False])), prepared.null(1)
    assert told.tokens is not None and null.tokens is not None
    assert torch.equal(told.tokens[0], null.tokens[0]) and torch.equal(told.vector[0], null.vector[0])
    assert torch.equal(told.vector[1], prepared(inputs).vector[1])
    told.tokens.sum().backward()
    assert prepared.null_row.grad is not None


def test_the_config_and_the_weights_rebuild_it(prepared: ClipTokens, clip: FakeClip, tmp_path: Path) -> None:
    again = ClipTokens(**ClipTokens().prepare(image_set(), str(tmp_path)))
    again.load_state_dict(prepared.state_dict())
    inputs = prepared.inputs(Request(prompts=["a rose"]))
    assert torch.equal(again(again.inputs(Request(prompts=["a rose"]))).vector, prepared(inputs).vector)


def test_requests_that_cannot_be_served(prepared: ClipTokens) -> None:
    for request in (Request(images=["a.jpg"]), Request()):
        with pytest.raises(LabError, match=r"words of captions: give prompts=\[\.\.\.\]"):
            prepared.inputs(request)
    with pytest.raises(ValueError, match="prepare"):
        ClipTokens().training_inputs(image_set().batch(torch.arange(2)), torch.zeros(2, 2))


def test_on_another_set_it_says_that_ones_captions(prepared: ClipTokens, clip: FakeClip, tmp_path: Path) -> None:
    others = replace(image_set(), captions=tuple(f"other number {i}" for i in range(N)))
    uniform = torch.rand(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    said: dict[str, list[str]] = {}
    for name, conditioner in (("own", prepared), ("others", prepared.on(others, str(tmp_path)))):
        clip.asked.clear()
        conditioner._said.clear()
        conditioner.training_inputs(others.batch(torch.arange(N)), uniform)
        said[name] = [text.split(" number ")[0] for text in clip.asked if " number " in text]
    assert set(said["own"]) == {"flower"} and set(said["others"]) == {"other"}
