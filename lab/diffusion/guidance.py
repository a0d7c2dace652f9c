"""Classifier-free guidance, every knob a number or one number a sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.errors import LabError

Knob = float | Tensor


def per_sample(value: Knob, like: Tensor) -> Tensor:
    """A number or (B,) tensor as (B, 1, 1, 1) beside `like` (B, C, H, W).

    Raises ValueError when a tensor has neither one entry nor one a sample.
    """
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device).flatten()
    if len(tensor) not in (1, len(like)):
        raise ValueError(f"one value or one a sample: got {len(tensor)} values for {len(like)} samples")
    return tensor.expand(len(like)).view((-1,) + (1,) * (like.ndim - 1))


def rescaled(guided: Tensor, conditional: Tensor, phi: Knob) -> Tensor:
    """Lin et al. 2023, eq. 14-16: pull the std of `guided` (over C, H, W) towards that of `conditional`.

    phi = 0 leaves it, phi = 1 makes the two equal; values outside [0, 1] extrapolate. All (B, C, H, W).
    """
    dims = tuple(range(1, guided.ndim))
    spread = guided.std(dim=dims, keepdim=True).clamp(min=1e-12)  # an untrained network says 0 everywhere
    ratio = conditional.std(dim=dims, keepdim=True) / spread
    return guided * (1 + per_sample(phi, guided) * (ratio - 1))


def check_interval(name: str, interval: Sequence[Knob]) -> None:
    """LabError unless these are two noise levels, the lower one first."""
    ends = [torch.as_tensor(end, dtype=torch.float32) for end in interval]
    lengths = {end.numel() for end in ends} - {1}
    if len(ends) != 2 or len(lengths) > 1 or not bool(((ends[0] >= 0) & (ends[0] <= ends[1]) & (ends[1] <= 1)).all()):
        raise LabError(f"{name}={list(interval)}: use two levels of noise, from 0 to 1, the lower one first")


@dataclass(frozen=True)
class GuidanceTerms:
    """What guidance did at one evaluation."""

    conditional: Tensor  # (B, C, H, W) the branches' outputs, in the space the network predicts
    unconditional: Tensor
    ratio: Tensor  # (B,) r = std(conditional) / std(guided), over C, H, W
    gain: Tensor  # (B,) 1 + rescale_phi (r - 1): what the guided output was multiplied by
    clip_fraction: Tensor  # (B,) share of predicted x0 outside [-1, 1] before it was brought back


@dataclass(frozen=True)
class Guidance:
    """u + scale (c - u), Ho & Salimans 2021: 0 unconditional, 1 conditional, below 0 pushes away.

    scale, rescale_phi   a number or a (B,) tensor; nothing is clipped to a "sensible" range
    interval             noise levels that are guided, from 0 (the first time step) to 1 (the last), each end a number
                         or a (B,) tensor; elsewhere the conditional branch alone (Kynkaanniemi et al. 2024)
    """

    scale: Knob = 1.0
    rescale_phi: Knob = 0.0
    interval: tuple[Knob, Knob] = (0.0, 1.0)

    def at(self, level: Tensor) -> "Guidance":
        """What holds at the noise levels (B,) in [0, 1] of a step: plain guidance, where they lie in the interval."""
        low, high = (torch.as_tensor(end, device=level.device) for end in self.interval)
        guided = (low <= level) & (level <= high)
        if bool(guided.all()):
            return Guidance(self.scale, self.rescale_phi)
        scale, phi = (torch.as_tensor(knob, device=level.device) for knob in (self.scale, self.rescale_phi))
        return Guidance(torch.where(guided, scale, 1.0), torch.where(guided, phi, 0.0))

    @property
    def needs_unconditional(self) -> bool:
        """False only where every sample has scale 1, when the unconditional branch cancels."""
        return bool((torch.as_tensor(self.scale) != 1).any())

    @property
    def needs_conditional(self) -> bool:
        """False only where every sample has scale 0 and no rescaling asks for the conditional std."""
        return bool((torch.as_tensor(self.scale) != 0).any() or (torch.as_tensor(self.rescale_phi) != 0).any())

    def combine(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """The guided network output (B, C, H, W), in the space the network predicts."""
        guided = unconditional + per_sample(self.scale, conditional) * (conditional - unconditional)
        if not bool((torch.as_tensor(self.rescale_phi) != 0).any()):
            return guided
        return rescaled(guided, conditional, self.rescale_phi)
