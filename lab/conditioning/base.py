"""The protocol of conditioners, and the empty one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lab.data import Batch, ImageSet
from lab.errors import LabError
from lab.seeding import generator


@dataclass(frozen=True)
class Condition:
    """What the network is told, one row a sample.

    What can be told in several ways, as a text that many pictures fit, has `choices` beside the vector in their midst.
    """

    vector: Tensor  # (B, D)
    tokens: Tensor | None = None  # (B, L, D), for cross-attention
    choices: Tensor | None = None  # (B, K, D)

    def __len__(self) -> int:
        return len(self.vector)

    def __getitem__(self, rows: Tensor | slice) -> "Condition":
        return self.map(lambda part: part[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Condition":
        """The same change of whatever there is."""
        parts = (None if part is None else change(part) for part in (self.tokens, self.choices))
        return Condition(change(self.vector), *parts)

    def chosen(self, seed: int, numbers: Sequence[int]) -> "Condition":
        """One choice a row, which the seed and the row's number decide; the same where there are none."""
        if self.choices is None:
            return self
        count = self.choices.shape[1]
        draws = [int(torch.randint(count, (), generator=generator(seed, "choice", number))) for number in numbers]
        rows = torch.arange(len(draws), device=self.choices.device)
        return Condition(self.choices[rows, torch.tensor(draws, device=rows.device)], self.tokens)

    def to(self, device: torch.device) -> "Condition":
        """The same on another device."""
        return self.map(lambda part: part.to(device))

    @staticmethod
    def cat(*conditions: "Condition") -> "Condition":
        """All rows of all, in turn; all have tokens or none."""
        return _joined(torch.cat, conditions)

    @staticmethod
    def where(chosen: Tensor, one: "Condition", other: "Condition") -> "Condition":
        """Row by row, `one` where `chosen` (B,) says so."""
        return _joined(lambda p: torch.where(chosen.view(-1, *[1] * (p[0].ndim - 1)), p[0], p[1]), (one, other))


def _joined(join: Callable[[list[Tensor]], Tensor], conditions: Sequence[Condition]) -> Condition:
    tokens = [condition.tokens for condition in conditions if condition.tokens is not None]
    count = max(0 if condition.choices is None else condition.choices.shape[1] for condition in conditions)
    choices = [c.vector[:, None].expand(-1, count, -1) if c.choices is None else c.choices for c in conditions]
    vectors = join([condition.vector for condition in conditions])
    return Condition(vectors, join(tokens) if tokens else None, join(choices) if count else None)


@dataclass(frozen=True)
class Request:
    """What a person asks for, before it is a tensor; exactly one of the three is given, or none of them."""

    prompts: Sequence[str] | None = None
    classes: Sequence[str | int] | None = None
    images: Sequence[str | Path | Image.Image] | None = None

    def __post_init__(self) -> None:
        given = [key for key in ("prompts", "classes", "images") if getattr(self, key) is not None]
        if len(given) > 1:
            raise LabError(f"{' and '.join(given)} are given together: use one of them")
        for key in given:
            asked = getattr(self, key)
            if isinstance(asked, str | int | Path | Image.Image):
                raise LabError(f"{key}={asked}: give a list, {key}=[...]")
            if not len(asked):
                raise LabError(f"{key}=[]: name at least one")
        for prompt in self.prompts or ():
            if not isinstance(prompt, str):
                raise LabError(f"prompts=[{prompt}]: a prompt is a text; numbers go into classes=[...]")

    @property
    def labels(self) -> list[str]:
        """A caption for each asked sample."""
        asked: Sequence[Any] = self.prompts or self.classes or [getattr(i, "filename", i) for i in self.images or ()]
        return [Path(a).name if isinstance(a, Path) else str(a) for a in asked]


class Conditioner(nn.Module, ABC):
    """Turns labels, prompts or images into a `Condition`; owns the null condition and its dropout rate.

    dim       width of `Condition.vector`
    token_dim width of `Condition.tokens`, 0 where there are none
    dropout   share of training samples whose condition is replaced by the null (Ho & Salimans 2021)
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        if not 0 <= dropout <= 1:
            raise LabError(f"conditioning.dropout={dropout}: use a share from 0 to 1")
        self.dim, self.dropout = dim, dropout

    @property
    def token_dim(self) -> int:
        return 0

    @property
    def telling(self) -> dict[str, Any]:
        """How requests are told, where that may change: it belongs to what is told of a sample."""
        return {}

    def prepare(self, images: ImageSet, cache_dir: str) -> dict[str, Any]:
        """Fit to the training set before training; returns what the run's config must record to be rebuilt."""
        return {}

    def on(self, images: ImageSet, cache_dir: str) -> "Conditioner":
        """This conditioner, prepared and with the same weights, whose `training_inputs` are those of another set."""
        return self

    @abstractmethod
    def training_inputs(self, batch: Batch, uniform: Tensor) -> Tensor:
        """What `forward` takes, for a batch of the prepared set: (B, ...).

        uniform (B, 2) in [0, 1): fresh numbers for each row, where something is to be chosen.
        """

    @abstractmethod
    def inputs(self, request: Request) -> Tensor:
        """What `forward` takes, for a person's request; LabError where this kind of run cannot serve it."""

    def asked(self, request: Request, device: torch.device) -> Condition:
        """A row for each thing that a person asks for; LabError where this kind of run cannot serve it."""
        condition: Condition = self(self.inputs(request).to(device))
        return condition

    @abstractmethod
    def forward(self, inputs: Tensor, drop: Tensor | None = None) -> Condition:
        """inputs (B, ...), drop (B,) bool: rows that get the null condition."""

    @abstractmethod
    def null(self, count: int) -> Condition:
        """The null condition, for that many samples."""


class Unconditional(Conditioner):
    """No condition at all: the network is told the time step only."""

    def __init__(self) -> None:
        super().__init__(dim=0, dropout=0.0)

    def training_inputs(self, batch: Batch, uniform: Tensor) -> Tensor:
        return torch.zeros(len(batch.labels), 0)

    def inputs(self, request: Request) -> Tensor:
        if request.labels:
            raise LabError("this run is unconditional: ask for count=N samples, without classes, prompts or images")
        return torch.zeros(1, 0)

    def forward(self, inputs: Tensor, drop: Tensor | None = None) -> Condition:
        return Condition(inputs)

    def null(self, count: int) -> Condition:
        return Condition(torch.zeros(count, 0))
