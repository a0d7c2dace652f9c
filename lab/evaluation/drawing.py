"""The samples that an evaluation looks at: as many of each class, kept as they are made."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab.conditioning import Condition
from lab.device import this_process
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.parts import Part, Parts
from lab.render import to_uint8


def draw(model: DiffusionModel, count: int, settings: Mapping[str, Any], parts: Parts) -> tuple[Tensor, Tensor]:
    """Pixels (N, H, W, 3) uint8 and classes (N,) of `count` samples, the classes in turn; -1 where there are none.

    settings   of `DiffusionModel.sample`; sample i has number i, whatever the batch
    parts      where what is finished is kept
    """
    condition, labels = classes_in_turn(model, count)
    return sampled(model, condition, labels.clamp(min=0), range(count), settings, parts), labels


def sampled(
    model: DiffusionModel,
    condition: Condition,
    which: Tensor,
    numbers: Sequence[int],
    settings: Mapping[str, Any],
    parts: Parts,
) -> Tensor:
    """Pixels (N, H, W, 3) uint8 of samples with these numbers, each under row `which` (N,) of the condition.

    A batch is a piece, which is kept. The processes that accelerate has launched share the pieces; all of them return
    all samples, so that their `parts` must be one folder.
    """
    chunks = torch.arange(len(which)).split(settings.get("batch_size") or model.sampling.batch_size)

    def made(chunk: Tensor) -> Part:
        samples = model.sample(
            condition=condition[which[chunk]],
            numbers=[numbers[int(row)] for row in chunk],
            output="tensor",
            progress=False,
            **settings,
        )
        assert isinstance(samples, Tensor)
        return {"pixels": torch.from_numpy(to_uint8(samples))}

    def piece(chunk: Tensor) -> Tensor:
        return parts.get(f"samples_{int(chunk[0]):06d}", lambda: made(chunk))["pixels"]

    processes = this_process()
    if processes.num_processes > 1:  # lest one removes what another has written
        with processes.main_process_first():
            parts.open()
    mine = chunks[processes.process_index :: processes.num_processes]
    for chunk in tqdm(mine, desc="sampling", leave=False, disable=None if processes.is_main_process else True):
        piece(chunk)
    processes.wait_for_everyone()
    return torch.cat([piece(chunk) for chunk in chunks])


def classes_in_turn(model: DiffusionModel, count: int) -> tuple[Condition, Tensor]:
    """A condition a class (C rows), and the class of each of `count` samples (N,)."""
    names = getattr(model.conditioner, "class_names", ())
    if names:
        return model.condition(classes=list(range(len(names)))), torch.arange(count) % len(names)
    if model.conditioner.dim:
        raise LabError("this run has conditions, but its data had no classes: there is nothing to ask it for evenly")
    return model.condition(), torch.full((count,), -1)


def estimate(model: DiffusionModel, count: int, settings: Mapping[str, Any]) -> float:
    """Seconds that sampling will take, from one evaluation of a whole batch."""
    batch_size = min(count, settings.get("batch_size") or model.sampling.batch_size)
    condition, labels = classes_in_turn(model, batch_size)
    rows = condition[labels.clamp(min=0)]
    asked = {key: settings[key] for key in ("num_inference_steps", "sampler", "spacing") if key in settings}
    states = model.states(rows, **asked)
    next(states)  # the first call is slower than the others
    began = time.perf_counter()
    next(states, None)
    steps = len(model.times(*(asked.get(key) for key in ("num_inference_steps", "sampler", "spacing"))))
    return (time.perf_counter() - began) * steps * count / batch_size
