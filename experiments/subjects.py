"""Of what an experiment makes pictures: classes or prompts, and how well a CLIP or a judge thinks they were met."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.common import spread
from lab import LabError
from lab.clip.captions import class_prompts
from lab.conditioning import Condition
from lab.conditioning.classes import class_index
from lab.evaluation.agreement import Similarity
from lab.evaluators import clip_of, judge_of
from lab.judging import Judge
from lab.model import DiffusionModel

logger = logging.getLogger(__name__)
AT_A_TIME = 128  # pictures that a judge looks at together
Score = Callable[[Tensor, Tensor], Tensor]  # pictures (B, 3, H, W), the subject of each (B,) -> a number each (B,)


@dataclass(frozen=True)
class Subjects:
    """What is asked for: a condition and a name each, and sentences that say the same."""

    names: list[str]
    condition: Condition  # a row each
    phrases: list[list[str]]
    classes: tuple[int, ...] = ()  # their numbers, where classes were asked for

    def __len__(self) -> int:
        return len(self.names)

    @property
    def facts(self) -> dict[str, list[Any]]:
        """What tells them from others: a CLIP hears a class and a prompt of the same name differently."""
        return {"subjects": self.names, "phrases": self.phrases}

    def repeated(self, count: int) -> "Subjects":
        """Each of them so many times in a row."""
        rows = torch.arange(len(self)).repeat_interleave(count)
        return self._of(rows)

    def moved(self, by: int) -> "Subjects":
        """Each the one that stands so many places on, the first following the last."""
        rows = (torch.arange(len(self)) + by) % len(self)
        return self._of(rows)

    def _of(self, rows: Tensor) -> "Subjects":
        classes = tuple(self.classes[i] for i in rows) if self.classes else ()
        return Subjects([self.names[i] for i in rows], self.condition[rows], [self.phrases[i] for i in rows], classes)


def ask(
    model: DiffusionModel,
    classes: Sequence[str | int] | None,
    prompts: Sequence[str] | None,
    count: int = 4,
    guided: bool = True,
) -> Subjects:
    """Prompts, else classes by name or number, else `count` of the run's classes, evenly spread.

    guided: whether a run without conditions is of no use; else `count` samples of it.
    Raises LabError for what this kind of run cannot serve.
    """
    if model.conditioner.dim == 0 and guided:
        raise LabError("this run is unconditional: there is nothing to guide; use a class or CLIP run")
    if model.conditioner.dim == 0:
        nothing = model.condition(prompts, classes=classes)[torch.zeros(count, dtype=torch.long)]
        return Subjects([f"sample {number}" for number in range(count)], nothing, [[]] * count)
    if prompts is not None:
        condition = model.condition(prompts, classes=classes)
        return Subjects(list(prompts), condition, [[prompt] for prompt in prompts])
    chosen = classes if classes is not None else spread(model, count)
    if chosen is None:
        raise LabError("this run's data have no classes: give prompts='[\"a red flower\"]'")
    names: Sequence[str] = model.conditioner.class_names  # type: ignore[assignment]
    condition = model.condition(classes=chosen)
    numbers = tuple(class_index(one, names) for one in chosen)
    called = [names[number] for number in numbers]
    return Subjects(called, condition, [class_prompts(name) for name in called], numbers)


class Verdict:
    """What a judge says about pictures that were asked to show certain classes: two scores.

    classes   the number of each subject's class, as the judge counts them
    """

    def __init__(self, judge: Judge, classes: Sequence[int]) -> None:
        self.judge, self.classes = judge, torch.tensor(classes)

    @property
    def about(self) -> str:
        """How often the judge itself is right."""
        return self.judge.about

    def right(self, images: Tensor, which: Tensor) -> Tensor:
        """(B,): 1 where the class comes first, else 0."""
        return (self._logits(images).argmax(dim=1) == self.classes[which]).float()

    def confidence(self, images: Tensor, which: Tensor) -> Tensor:
        """(B,): the probability that the judge gives the class."""
        return self._logits(images).softmax(dim=1).gather(1, self.classes[which, None])[:, 0]

    def _logits(self, images: Tensor) -> Tensor:
        return torch.cat([self.judge.logits(part) for part in images.split(AT_A_TIME)])


def similarity_of(model: DiffusionModel, run: str | Path, subjects: Subjects) -> Similarity | None:
    """Likeness to what the subjects say, by the CLIP that the run or its data know; None and a warning without one."""
    clip = clip_of(model, run)
    if clip is None:
        logger.warning("similarity is left out: no CLIP knows this run's data, as that of a run on CLIP's vectors does")
        return None
    return Similarity(clip, subjects.phrases)


def verdict_of(model: DiffusionModel, subjects: Subjects, judge: str | None) -> Verdict | None:
    """The scores of the judge that is named, else of the one that is kept; None where none knows what is asked for.

    Raises LabError for a judge that is named and is of no use.
    """
    if not subjects.classes:
        if judge is not None:
            raise LabError(f"judge={judge}: it tells classes, and prompts ask for none")
        return None
    found = judge_of(model.conditioner.class_names, judge)  # type: ignore[arg-type]
    return None if found is None else Verdict(found.to(model.device), subjects.classes)
