"""The samples that an evaluation looks at, of the classes that it names, kept as they are made."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab.conditioning import Condition
from lab.data import ImageSet
from lab.device import this_process
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.parts import Part, Parts, named
from lab.render import to_uint8


def draw(
    model: DiffusionModel, classes: Tensor, settings: Mapping[str, Any], parts: Parts, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Pixels (N, H, W, 3) uint8 of samples of these classes (N,), and the classes; -1 for a run that knows none.

    settings   of `DiffusionModel.sample`; sample i has number first + i, whatever the batch
    parts      where what is finished is kept
    """
    condition, labels = conditions_of(model, classes)
    numbers = range(first, first + len(labels))
    return sampled(model, condition, labels.clamp(min=0), numbers, settings, parts), labels


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
    chunks = chunks_of(model, len(which), settings)

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
        return parts.get(named("samples", chunk), lambda: made(chunk))["pixels"]

    processes = this_process()
    if processes.num_processes > 1:  # lest one removes what another has written
        with processes.main_process_first():
            parts.open()
    mine = chunks[processes.process_index :: processes.num_processes]
    for chunk in tqdm(mine, desc="sampling", leave=False, disable=None if processes.is_main_process else True):
        piece(chunk)
    processes.wait_for_everyone()
    return torch.cat([piece(chunk) for chunk in chunks])


def chunks_of(model: DiffusionModel, count: int, settings: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The rows of each batch."""
    return torch.arange(count).split(settings.get("batch_size") or model.sampling.batch_size)


def conditions_of(model: DiffusionModel, classes: Tensor) -> tuple[Condition, Tensor]:
    """A condition a class (C rows), and of which one each sample is (N,): -1 for a run that knows no classes.

    Raises LabError for a run that is conditioned on something else.
    """
    names = getattr(model.conditioner, "class_names", ())
    if names:
        return model.condition(classes=list(range(len(names)))), classes
    if model.conditioner.dim:
        raise LabError("this run has conditions, but its data had no classes: there is nothing to ask it for")
    return model.condition(), torch.full_like(classes, -1)


def check_classes(model: DiffusionModel, images: ImageSet) -> None:
    """LabError where a set has other classes by now than those that the run learned."""
    names = tuple(getattr(model.conditioner, "class_names", ()))
    if names and names != images.class_names:
        raise LabError(f"data: {images.name} has other classes than the run was trained on; give back the data it had")


def estimate(
    model: DiffusionModel,
    classes: Tensor,
    settings: Mapping[str, Any],
    parts: Parts,
    others: Sequence[tuple[int, Parts]] = (),
) -> float:
    """Seconds that sampling what is not there yet will take, told by a batch of two evaluations and one of four.

    others   further samples, how many and where they are kept
    """
    missing = [
        len(chunk)
        for count, kept in [(len(classes), parts), *others]
        for chunk in (chunks_of(model, count, settings) if count else ())
        if not kept.has(named("samples", chunk))
    ]
    if not missing:
        return 0.0
    condition, labels = conditions_of(model, classes[: missing[0]])
    rows = condition[labels.clamp(min=0)]

    def seconds(steps: int) -> float:
        began = time.perf_counter()
        model.sample(condition=rows, output="tensor", progress=False, **{**settings, "num_inference_steps": steps})
        return time.perf_counter() - began

    _, two, four = seconds(2), seconds(2), seconds(4)  # the first call is slower than the others
    steps = settings.get("num_inference_steps") or model.sampling.num_inference_steps
    a_batch = max(0.0, two + (steps - 2) * (four - two) / 2)
    return a_batch * sum(missing) / len(labels)
