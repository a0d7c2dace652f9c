"""Words of no meaning come in between, and nothing of what was said is lost."""

import open_clip
import pytest
import torch
from torch import Tensor

from lab.clip.words import MOST, strew

TEXTS = ("a photo of a red snapdragon", "black-eyed susan", "a bishop of llandaff, a kind of plant") * 60


@pytest.fixture(scope="module")
def tokenizer() -> open_clip.tokenizer.SimpleTokenizer:
    return open_clip.get_tokenizer("flower_clip_small")


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def said(row: Tensor) -> list[int]:
    """The tokens between the marks of start and end."""
    tokens: list[int] = row.tolist()
    return tokens[1 : tokens.index(max(tokens))]


def is_within(few: list[int], many: list[int]) -> bool:
    """Whether all of the few are among the many, in their order."""
    rest = iter(many)
    return all(token in rest for token in few)


def test_a_share_of_the_captions_has_more_words_and_all_of_its_own_in_order(
    tokenizer: open_clip.tokenizer.SimpleTokenizer,
) -> None:
    plain, strewn = tokenizer(list(TEXTS)), strew(tokenizer, TEXTS, 0.5, draw())
    more = [len(said(one)) - len(said(other)) for one, other in zip(strewn, plain, strict=True)]
    assert sum(count > 0 for count in more) / len(more) == pytest.approx(0.5, abs=0.1)
    assert set(more) == set(range(MOST + 1))
    assert all(is_within(said(one), said(other)) for one, other in zip(plain, strewn, strict=True))
    assert strewn.shape == plain.shape and torch.equal(strewn[:, 0], plain[:, 0])
    ended = strewn == tokenizer.eot_token_id
    assert bool((ended.sum(dim=1) == 1).all())
    behind = ended.cumsum(dim=1).bool() & ~ended
    assert bool((strewn[behind] == 0).all())


def test_no_word_is_torn(tokenizer: open_clip.tokenizer.SimpleTokenizer) -> None:
    whole = [said(row) for row in tokenizer(["snapdragon", "llandaff"])]
    for row in strew(tokenizer, TEXTS, 1.0, draw(1)):
        tokens = said(row)
        for word in whole:
            for place in (i for i, token in enumerate(tokens) if token == word[0]):
                assert tokens[place : place + len(word)] == word


def test_what_fills_its_place_gets_no_more(tokenizer: open_clip.tokenizer.SimpleTokenizer) -> None:
    full = tokenizer([" ".join(["rose"] * 40), " ".join(["rose"] * 20)])
    strewn = strew(tokenizer, [" ".join(["rose"] * 40), " ".join(["rose"] * 20)] * 20, 1.0, draw())
    assert torch.equal(strewn[::2], full[:1].expand(20, -1))
    assert {len(said(row)) for row in strewn[1::2]} == {21, 22}


def test_none_is_what_the_tokenizer_says(tokenizer: open_clip.tokenizer.SimpleTokenizer) -> None:
    assert torch.equal(strew(tokenizer, TEXTS, 0.0, draw()), tokenizer(list(TEXTS)))


def test_parts_of_a_batch_get_what_the_whole_gets(tokenizer: open_clip.tokenizer.SimpleTokenizer) -> None:
    parts = [strew(tokenizer, TEXTS, 0.5, draw(), slice(i, i + 60)) for i in (0, 60, 120)]
    assert torch.equal(torch.cat(parts), strew(tokenizer, TEXTS, 0.5, draw()))
