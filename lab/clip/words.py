"""Words that say nothing: who has learned to pass over them hears sentences that no caption had."""

from collections.abc import Sequence
from functools import cache

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

MOST = 4  # in a caption


def strew(
    tokenizer: SimpleTokenizer, texts: Sequence[str], share: float, draw: torch.Generator, rows: slice = slice(None)
) -> Tensor:
    """Tokens (b, L) of some of B captions, a `share` of which have one to MOST words of the vocabulary in between.

    A small CLIP meets a few hundred words in training; any other is a random vector to it, and would move what it
    makes of the rest. Words are put between words, and no more than there is room for.
    """
    tokens, total = tokenizer(list(texts[rows])), len(texts)
    words, ends = _words(tokenizer)
    chosen = (torch.rand(total, generator=draw) < share)[rows]  # drawn for all: a rank's part is that of one process
    counts = torch.randint(1, MOST + 1, (total,), generator=draw)[rows]
    strewn = words[torch.randint(len(words), (total, MOST), generator=draw)][rows]
    places = torch.rand(total, MOST, generator=draw)[rows]
    for row in chosen.nonzero()[:, 0].tolist():
        end = int(tokens[row].argmax())  # its mark has the greatest number
        said = tokens[row, 1:end].tolist()
        behind = (place + 1 for place, token in enumerate(said) if ends[token])
        gaps = [0, *behind]  # between words
        room = min(int(counts[row]), tokens.shape[1] - 1 - end)
        at = (gaps[int(place * len(gaps))] for place in places[row, :room])
        for place, word in sorted(zip(at, strewn[row].tolist(), strict=False), reverse=True):
            said.insert(place, word)
        tokens[row, 1 : end + 1 + room] = torch.tensor([*said, tokenizer.eot_token_id])
    return tokens


@cache
def _words(tokenizer: SimpleTokenizer) -> tuple[Tensor, Tensor]:
    """Numbers (K,) of all tokens that are whole words or ends of words, and whether each (V,) is."""
    ends = torch.zeros(len(tokenizer.decoder), dtype=torch.bool)
    ends[[number for number, text in tokenizer.decoder.items() if text.endswith("</w>")]] = True
    return ends.nonzero()[:, 0], ends
