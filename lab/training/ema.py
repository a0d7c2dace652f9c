"""An exponential moving average of the weights, with a warm-up."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EARLY = 20  # steps that are taken in one by one


class EMA:
    """Averages what is trained; the decay rises as (1 + step) / (10 + step) until it reaches `decay`.

    Without the warm-up the random start weighs on the average for the first 1 / (1 - decay) steps and more.

    decay   in [0, 1), `TrainingSettings` sees to it
    every   steps that are taken in at once, their decays multiplied, after the first 20: reading all weights takes a
            few hundredths of a step on a CPU, and an average over a thousand steps cannot tell; the last
            every - 1 steps of a run at most are not in it
    """

    def __init__(self, module: nn.Module, decay: float = 0.9995, every: int = 1) -> None:
        self.decay, self.every = decay, every
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.averages = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step` (0-based), once in `every` where it is no early one."""
        if step >= EARLY and (step + 1 - EARLY) % self.every:
            return
        first = step if step < EARLY else step + 1 - self.every
        decay = math.prod(min(self.decay, (1 + k) / (10 + k)) for k in range(first, step + 1))
        torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the module has the averaged weights; afterwards its own again, bit for bit."""
        own = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._copy(self.averages)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def load(self, averages: dict[str, Tensor]) -> None:
        """Take averages saved earlier."""
        for name, average in self.averages.items():
            average.copy_(averages[name])

    @torch.no_grad()
    def _copy(self, source: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(source[name])
