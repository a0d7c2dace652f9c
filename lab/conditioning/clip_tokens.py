"""What CLIP's text tower says at each word of a caption, as tokens for cross-attention."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from lab.clip.captions import CaptionMaker, class_prompts
from lab.conditioning.base import Condition, Request
from lab.conditioning.classes import class_index
from lab.conditioning.clip import ClipConditioner
from lab.data import Batch, ImageSet
from lab.device import local_device
from lab.errors import LabError
from lab.seeding import generator

KEPT = 2**28  # bytes of captions' tokens that are remembered
SEEN = 512  # captions that statistics are taken over


class ClipTokens(ClipConditioner):
    """Captions made for the training images, as Rombach et al. 2022, section 4.3.1, with CLIP in BERT's place.

    Training and sampling both speak: no modality gap, but no pictures as conditions either. The vector is CLIP's of the
    sentence, the tokens the text tower's last states, both standardised over captions of the set.

    model, pretrained, fingerprint   as in ClipConditioner
    dim, token_width, length   of vectors, of tokens, and how many there are: filled in by training, as are
                        fingerprint and class_names, and kept in the run's config
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str = "flower_clip",
        pretrained: str = "flower_clip",
        dropout: float = 0.1,
        dim: int = 0,
        token_width: int = 0,
        length: int = 0,
        fingerprint: str | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__(model, pretrained, dim, dropout, fingerprint)
        self.token_width, self.length, self.class_names = token_width, length, tuple(class_names)
        self._captions: CaptionMaker | None = None
        self._said: dict[str, Tensor] = {}
        self._allocate()

    def _allocate(self) -> None:
        """A row is a vector and then all tokens, one after another."""
        row = self.dim + self.length * self.token_width
        self.null_row = nn.Parameter(torch.zeros(row))
        self.register_buffer("mean", torch.zeros(row))
        self.register_buffer("std", torch.ones(row))

    @property
    def token_dim(self) -> int:
        return self.token_width

    def prepare(self, images: ImageSet, cache_dir: str) -> dict[str, Any]:
        """Take the statistics of captions drawn for some of the images."""
        self._captions, self.class_names = CaptionMaker(images), images.class_names
        self.clip.to(local_device())
        draw = generator(0, "caption tokens")
        some = torch.randint(len(images), (SEEN,), generator=draw)
        vectors, tokens = self.clip.encode_tokens(self._captions.draw(some, draw).texts)
        self.dim, self.length, self.token_width = vectors.shape[1], *tokens.shape[1:]
        self.fingerprint = self.clip.fingerprint
        self._allocate()
        vectors, tokens = vectors.cpu(), tokens.cpu()
        self.mean = torch.cat([vectors.mean(dim=0), tokens.mean(dim=0).flatten()])
        spread = [part.var(dim=0).mean().sqrt() for part in (vectors, tokens)]
        sizes = torch.tensor([self.dim, self.length * self.token_width])
        self.std = torch.stack(spread).repeat_interleave(sizes)
        record = {key: getattr(self, key) for key in ("dim", "token_width", "length", "fingerprint")}
        return {**record, "class_names": list(self.class_names)}

    def on(self, images: ImageSet, cache_dir: str) -> "ClipTokens":
        """The same with captions of another set."""
        other = copy(self)
        other._captions = CaptionMaker(images)
        return other

    def training_inputs(self, batch: Batch, uniform: Tensor) -> Tensor:
        """(B, dim + length * token_width) of a caption for each image, which `uniform` chooses."""
        if self._captions is None:
            raise ValueError("prepare(images) comes before training")
        return self._encode(self._captions.say(batch.indices, uniform).texts)

    def inputs(self, request: Request) -> Tensor:
        """(B, dim + length * token_width) of prompts, or of class names through a prompt."""
        if request.images is not None:
            raise LabError("this run is conditioned on the words of captions: give prompts=[...] or classes=[...]")
        if request.classes is not None:
            names = [self.class_names[class_index(c, self.class_names)] for c in request.classes]
            return self._encode([class_prompts(name)[0] for name in names])  # one that training says, to the letter
        if request.prompts is None:
            raise LabError("this run is conditioned on the words of captions: give prompts=[...] or classes=[...]")
        return self._encode(list(request.prompts))

    def _encode(self, texts: Sequence[str]) -> Tensor:
        """Rows of sentences, of which those said before are remembered.

        Each is encoded alone: its row may not depend on what else was new, or a resumed run would differ in rounding.
        """
        rows = []
        for text in texts:
            if text not in self._said:
                vectors, tokens = self.clip.encode_tokens([text])
                row = torch.cat([vectors, tokens.flatten(1)], dim=1)[0].cpu().half()
                if (len(self._said) + 1) * row.nbytes > KEPT:
                    self._said.clear()
                self._said[text] = row
            rows.append(self._said[text])
        return torch.stack(rows).float()

    def forward(self, inputs: Tensor, drop: Tensor | None = None) -> Condition:
        """inputs (B, dim + length * token_width) -> vector (B, dim) and tokens (B, length, token_width)."""
        rows = (inputs - self.mean) / self.std
        if drop is not None:
            rows = torch.where(drop[:, None], self.null_row.to(rows), rows)
        return self._told(rows)

    def null(self, count: int) -> Condition:
        return self._told(self.null_row.expand(count, -1))

    def _told(self, rows: Tensor) -> Condition:
        vector, tokens = rows[:, : self.dim], rows[:, self.dim :]
        return Condition(vector, tokens.unflatten(1, (self.length, self.token_width)) if self.length else None)
