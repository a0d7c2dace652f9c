"""Class labels as conditions."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from lab.conditioning.base import Condition, Conditioner, Request
from lab.data import Batch, ImageSet
from lab.errors import LabError


def class_index(name: str | int, class_names: Sequence[str]) -> int:
    """Number of a class given by number or name; LabError suggests the nearest names.

    A string is a name first, for there are sets whose classes are called 0, 1, 2; letter case decides only
    between names that differ in nothing else.
    """
    text = str(name).strip()
    if not class_names:
        raise LabError(f"classes={text}: the set that this run was trained on has no classes")
    if isinstance(name, str) and text in class_names:
        return class_names.index(text)
    folded = {known.casefold(): number for number, known in enumerate(class_names)}
    if isinstance(name, str) and text.casefold() in folded:
        return folded[text.casefold()]
    if re.fullmatch("-?[0-9]+", text):
        if 0 <= int(text) < len(class_names):
            return int(text)
        raise LabError(f"classes={text}: numbers go from 0 to {len(class_names) - 1}")
    near = [class_names[folded[key]] for key in get_close_matches(text.casefold(), folded, n=3, cutoff=0.0)]
    raise LabError(f"classes={text}: no such class; nearest: {', '.join(near)}")


class ClassEmbedding(Conditioner):
    """A learned vector a class, and one more for "no class".

    tokens   learned tokens a class beside it, for cross-attention; 0: none
    class_names is filled in from the training set and kept in the run's config.
    """

    def __init__(self, dim: int = 256, dropout: float = 0.1, tokens: int = 0, class_names: Sequence[str] = ()) -> None:
        super().__init__(dim, dropout)
        if tokens < 0:
            raise LabError(f"conditioning.tokens={tokens}: use 0 or more")
        if dim < 1:
            raise LabError(f"conditioning.dim={dim}: use at least 1, or conditioning=unconditional")
        self.tokens, self.class_names = tokens, tuple(class_names)
        self._allocate()

    def _allocate(self) -> None:
        """Vectors and tokens of a class are one row."""
        self.embedding = nn.Embedding(len(self.class_names) + 1, (1 + self.tokens) * self.dim)

    @property
    def token_dim(self) -> int:
        return self.dim if self.tokens else 0

    def prepare(self, images: ImageSet, cache_dir: str) -> dict[str, Any]:
        if not images.class_names:
            raise LabError(f"conditioning=class: the set {images.name} has no classes; use conditioning=unconditional")
        self.class_names = images.class_names
        self._allocate()
        return {"class_names": list(images.class_names)}

    def training_inputs(self, batch: Batch, uniform: Tensor) -> Tensor:
        return batch.labels

    def inputs(self, request: Request) -> Tensor:
        """(B,) int64. Names given as prompts count as classes when they are the name of one."""
        if request.images is not None:
            raise LabError("this run is class-conditional: give classes=[...], not images")
        if request.prompts is not None:
            unknown = [p for p in request.prompts if p.strip().casefold() not in map(str.casefold, self.class_names)]
            if unknown:
                raise LabError(f"this run is class-conditional and {unknown[0]!r} is no class: give classes=[...]")
        names = request.classes if request.classes is not None else request.prompts
        if names is None:
            raise LabError("this run is class-conditional: give classes=[names or numbers]")
        return torch.tensor([class_index(name, self.class_names) for name in names])

    def forward(self, inputs: Tensor, drop: Tensor | None = None) -> Condition:
        """inputs (B,) labels -> vector (B, dim), tokens (B, tokens, dim)."""
        if drop is not None:
            inputs = torch.where(drop, len(self.class_names), inputs)
        return self._told(self.embedding(inputs))

    def null(self, count: int) -> Condition:
        return self._told(self.embedding.weight[-1].expand(count, -1))

    def _told(self, rows: Tensor) -> Condition:
        parts = rows.unflatten(1, (1 + self.tokens, self.dim))
        return Condition(parts[:, 0], parts[:, 1:] if self.tokens else None)
