"""What the loop trains."""

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor, nn

from lab.data import BatchStream


class Task(nn.Module, ABC):
    """A module whose forward gives the losses of one step's inputs.

    Parameters and buffers are what is trained, averaged and saved. Everything random in a step comes from
    `inputs`, which is a pure function of (seed, step, rank): that is all a resumed run needs.
    """

    name: str = "task"
    divisible: bool = True  # whether the mean over parts of a batch is that over the batch: they may come one by one
    rated_by: str | None = None  # number of `preview`: the checkpoint with the lowest stays, however old

    @abstractmethod
    def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """This rank's part of step `step`: keyword arguments for `forward`."""

    @abstractmethod
    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """{"loss": (B,) or (), ...}: the mean of "loss" is minimised, further entries are logged as means."""

    @abstractmethod
    def epoch(self, step: int) -> float:
        """How often each image has been seen after `step` steps, on average."""

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        """Look at what has been learned: write pictures into `folder`, return numbers for the log.

        Called with the averaged weights in place.
        """
        return {}

    def culprits(self, step: int) -> list[tuple[int, str]]:
        """The images in a step's global batch and their files, for the report on a loss that is not finite."""
        return []


class StreamTask(Task):
    """A task whose steps see the batches of a stream."""

    stream: BatchStream

    def epoch(self, step: int) -> float:
        return self.stream.epoch(step)

    def culprits(self, step: int) -> list[tuple[int, str]]:
        return [(index, self.stream.image_set.file(index)) for index in self.stream.indices(step).tolist()]
