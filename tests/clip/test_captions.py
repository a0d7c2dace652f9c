import re
from collections.abc import Callable

import pytest
import torch
from torchvision.datasets import Flowers102

from lab.clip.captions import (
    COLOURED,
    ENDINGS,
    KINDS_OF,
    NAMED,
    NAMED_AND_COLOURED,
    OPENINGS,
    VARIED,
    CaptionMaker,
    Captions,
    Wordings,
    class_prompts,
    fact_prompts,
    with_articles,
)
from lab.clip.task import FlowerClipTask
from lab.data import ImageSet
from lab.evaluation.agreement import COLOUR_PROMPTS

MakeSet = Callable[..., ImageSet]


def drawn(maker: CaptionMaker, indices: list[int], seed: int = 0) -> Captions:
    return maker.draw(torch.tensor(indices), torch.Generator().manual_seed(seed))


@pytest.fixture
def named(make_set: MakeSet) -> ImageSet:
    return make_set(
        ["red", "red", "yellow", "white"], labels=[0, 1, 1, 2], class_names=["rose", "iris", "pink primrose"]
    )


@pytest.fixture
def painted(make_set: MakeSet) -> ImageSet:
    rows = [("red", 3, "yellow"), ("red", 5, "yellow"), ("blue", 5, "white")]
    factors = [{"petal_colour": p, "petal_count": n, "centre_colour": c} for p, n, c in rows]
    captions = [
        "a red flower with three petals",
        "a red flower with five petals and a yellow centre",
        "five blue petals around a white centre",
    ]
    return make_set(["red", "red", "blue"], [0, 1, 2], ["a", "b", "c"], captions, factors)


def test_equal_generators_give_equal_captions(named: ImageSet) -> None:
    maker = CaptionMaker(named)
    first, again, other = (drawn(maker, [0, 1, 2, 3] * 8, seed) for seed in (0, 0, 1))
    assert first.texts == again.texts and torch.equal(first.stated, again.stated)
    assert first.texts != other.texts


def test_captions_state_name_colour_or_both(named: ImageSet) -> None:
    maker = CaptionMaker(named)
    assert maker.fields == ("name", "colour")
    captions = drawn(maker, [0] * 300)
    kinds = {(bool(name), bool(colour)) for name, colour in captions.stated.tolist()}
    assert kinds == {(True, False), (False, True), (True, True)}
    for text, (name, colour) in zip(captions.texts, captions.stated.tolist(), strict=True):
        assert ("rose" in text, "red" in text) == (name, colour), text


def test_a_name_that_says_a_colour_gets_no_second_one(named: ImageSet) -> None:
    captions = drawn(CaptionMaker(named), [3] * 300)
    assert not captions.stated.all(dim=1).any()
    assert not any("primrose" in text and "white" in text for text in captions.texts)


def test_articles() -> None:
    assert with_articles("a orange iris in a ocean, a red one, A elm, banana art") == (
        "an orange iris in an ocean, a red one, An elm, banana art"
    )


def test_truth_follows_shared_facts(named: ImageSet) -> None:
    captions = Captions(
        ("a rose", "a red flower", "a yellow iris", "a white flower"),
        torch.tensor([[True, False], [False, True], [True, True], [False, True]]),
    )
    truth = CaptionMaker(named).truth(torch.arange(4), captions)
    assert truth.int().tolist() == [
        [1, 1, 0, 0],  # a red rose
        [0, 1, 0, 0],  # a red iris
        [0, 0, 1, 0],  # a yellow iris
        [0, 0, 0, 1],
    ]


def test_each_caption_is_true_of_its_own_image(named: ImageSet, painted: ImageSet) -> None:
    for image_set in (named, painted):
        indices = torch.randint(len(image_set), (200,), generator=torch.Generator().manual_seed(0))
        maker = CaptionMaker(image_set)
        assert maker.truth(indices, drawn(maker, indices.tolist())).diagonal().all()


def test_own_captions_state_the_factors_that_they_say(painted: ImageSet) -> None:
    maker = CaptionMaker(painted)
    assert maker.fields == ("name", "petal_colour", "petal_count", "centre_colour")
    captions = drawn(maker, [0, 1, 2] * 100)
    stated = dict(zip(captions.texts, captions.stated.tolist(), strict=True))
    assert stated["a red flower with three petals"] == [False, True, True, False]
    assert stated["a red flower with five petals and a yellow centre"] == [False, True, True, True]
    assert stated["five blue petals around a white centre"] == [False, True, True, True]
    assert stated["a flower with five petals"] == [False, False, True, False]


def test_painted_sets_also_get_short_captions(painted: ImageSet) -> None:
    texts = set(drawn(CaptionMaker(painted), [1] * 300).texts)
    assert {
        "a red flower",
        "a flower with five petals",
        "a red flower with five petals",
        "a b in bloom",
    } <= texts


def test_captions_alone_are_true_where_they_are_equal(make_set: MakeSet) -> None:
    maker = CaptionMaker(make_set(["red", "blue", "red"], captions=["one thing", "another thing", "one thing"]))
    captions = drawn(maker, [0, 1, 2])
    assert captions.texts == ("one thing", "another thing", "one thing")
    assert maker.truth(torch.arange(3), captions).int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_without_names_or_captions_the_colour_is_what_is_known(make_set: MakeSet) -> None:
    maker = CaptionMaker(make_set(["red", "yellow"]))
    assert maker.fields == ("colour",)
    texts = drawn(maker, [0, 1] * 20).texts
    assert all("red" in a and "yellow" in b for a, b in zip(texts[::2], texts[1::2], strict=True))


def test_prompts_for_retrieval() -> None:
    assert "a photo of an iris, a type of flower" in class_prompts("iris")
    assert "a pink-yellow dahlia" in class_prompts("pink-yellow dahlia?")
    assert "an orange flower" in fact_prompts("colour", "orange")
    assert fact_prompts("petal_count", "five") == ["a flower with five petals"]
    assert fact_prompts("name", "rose") == []


# -- wordings -----------------------------------------------------------------------------------


def test_wordings_are_all_ways_to_put_parts_together() -> None:
    wordings = Wordings(("", "see"), ("a", "the"), ("{name}", "{name} flower"), ("", ", a plant"))
    assert len(wordings) == len(list(wordings)) == len(set(wordings)) == 16
    assert wordings[:4] == ["a {name}", "a {name}, a plant", "a {name} flower", "a {name} flower, a plant"]
    assert wordings[-1] == "see the {name} flower, a plant"
    with pytest.raises(IndexError):
        wordings[16]


def test_varied_captions_say_the_same_facts_in_more_ways(named: ImageSet) -> None:
    images = [0, 1, 2] * 400
    plain, varied = (drawn(CaptionMaker(named, varied), images) for varied in (False, True))
    assert len(set(plain.texts)) < 50 < 600 < len(set(varied.texts))
    assert torch.equal(plain.stated, varied.stated) and set(plain.texts) <= set(varied.texts)
    assert {*class_prompts("rose"), *fact_prompts("colour", "red")} <= set(varied.texts)  # what is asked is still said
    names, colours = ("rose", "iris", "iris"), ("red", "red", "yellow")
    for text, (name, colour), image in zip(varied.texts, varied.stated.tolist(), images, strict=True):
        said = set(text.replace(",", "").split())
        assert said & {"rose", "iris"} == ({names[image]} if name else set()), text
        assert said & {"red", "yellow"} == ({colours[image]} if colour else set()), text


@pytest.mark.parametrize("plain", [NAMED, COLOURED, NAMED_AND_COLOURED])
def test_every_varied_template_states_what_its_kind_does(plain: tuple[str, ...]) -> None:
    facts = {field for field in ("{name}", "{colour}") if field in plain[0]}
    texts = list(VARIED[plain])
    assert len(texts) > 25_000 and len(set(texts)) > 15_000
    for text in texts:
        assert {field for field in ("{name}", "{colour}") if field in text} == facts, text
        assert "  " not in text and " ," not in text and text == text.strip()


def test_what_says_nothing_says_no_flowers_name() -> None:
    """A flower that is found "this morning" is no morning glory."""
    names = {word for name in Flowers102.classes for word in re.findall(r"[a-z]+", name.lower())}
    idle = {word for part in (OPENINGS, KINDS_OF, ENDINGS) for text in part for word in re.findall(r"[a-z]+", text)}
    assert idle & names <= {"a", "the", "in", "of"}


def test_what_says_nothing_is_not_said_of_painted_flowers(painted: ImageSet) -> None:
    """They have sizes, which it would deny."""
    task = FlowerClipTask(painted, painted, 3, seed=0, model="flower_clip_small")
    assert not task.captions.varied


def test_no_varied_caption_is_what_an_evaluation_asks(named: ImageSet) -> None:
    """It asks for colours in sentences that training has not said, nor most of their words."""
    said = {template.replace("{colour}", colour) for template in VARIED[COLOURED] for colour in COLOUR_PROMPTS}
    assert not said & set(COLOUR_PROMPTS.values())
    words = {word for template in said for word in template.split()}
    assert not words & {"one", "big", "coloured", "garden"}
