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


def std_ratio(conditional: Tensor, guided: Tensor) -> Tensor:
    """r = std(conditional) / std(guided) over C, H, W of each sample: (B, 1, 1, 1) for (B, C, H, W)."""
    dims = tuple(range(1, guided.ndim))
    spread = guided.std(dim=dims, keepdim=True).clamp(min=1e-12)  # an untrained network says 0 everywhere
    return conditional.std(dim=dims, keepdim=True) / spread


def gain_of(ratio: Tensor, phi: Knob) -> Tensor:
    """1 + phi (r - 1) of ratios r (B, 1, 1, 1), by which the guided output is multiplied: Lin et al. 2023, eq. 14-16.

    phi = 0 leaves the output, phi = 1 gives it the std of the conditional one; others extrapolate: the gain is 0 at
    phi = 1 / (1 - r), and negative beyond.
    """
    return 1 + per_sample(phi, ratio) * (ratio - 1)


def split(difference: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """(parallel, orthogonal): `difference` (B, C, H, W) taken apart along each sample's `direction` (B, C, H, W)."""
    dims = tuple(range(1, difference.ndim))
    length = direction.square().sum(dims, keepdim=True).clamp(min=1e-12)
    parallel = (difference * direction).sum(dims, keepdim=True) / length * direction
    return parallel, difference - parallel


def check_interval(name: str, interval: Sequence[Knob]) -> None:
    """LabError unless these are two noise levels, or two rows of them, the lower one first."""
    advice = "use two levels of noise, from 0 to 1, the lower one first"
    if not isinstance(interval, Sequence | Tensor) or len(interval) != 2:
        raise LabError(f"{name}={interval}: {advice}".replace("\n", ""))
    low, high = (torch.as_tensor(end, dtype=torch.float32).flatten().cpu() for end in interval)
    if len(low) != len(high) and 1 not in (len(low), len(high)):
        raise LabError(f"{name}=[{len(low)} values, {len(high)} values]: {advice}")
    wrong = ~((low >= 0) & (low <= high) & (high <= 1))
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        ends = [float(end.expand(len(wrong))[first]) for end in (low, high)]
        raise LabError(f"{name}=[{ends[0]:g}, {ends[1]:g}]: {advice}")


@dataclass(frozen=True)
class GuidanceTerms:
    """What guidance did at one evaluation: the branches' outputs, in the space the network predicts, and the gain."""

    conditional: Tensor  # (B, C, H, W)
    unconditional: Tensor  # (B, C, H, W)
    ratio: Tensor  # (B,) r = std(conditional) / std(guided), over C, H, W
    gain: Tensor  # (B,) 1 + rescale_phi (r - 1): what the guided output was multiplied by


@dataclass(frozen=True)
class Guidance:
    """u + scale (c - u), Ho & Salimans 2021: 0 unconditional (where parallel is 1), 1 conditional, below 0 pushes
    away.

    scale, rescale_phi   a number or a (B,) tensor; nothing is clipped to a "sensible" range
    interval             noise levels that are guided, from 0 (the first time step) to 1 (the last), each end a number
                         or a (B,) tensor; elsewhere the conditional branch alone (Kynkaanniemi et al. 2024)
    parallel             how much of the part of c - u that is parallel to c is kept: 1 all, 0 none, which guides
                         without saturating (APG, Sadat et al. 2024; without their momentum and norm)
    """

    scale: Knob = 1.0
    rescale_phi: Knob = 0.0
    interval: tuple[Knob, Knob] = (0.0, 1.0)
    parallel: Knob = 1.0

    def rows(self, chosen: Tensor) -> "Guidance":
        """That of some samples, where every knob is (B,)."""
        low, high = self.interval
        knobs = [torch.as_tensor(knob)[chosen] for knob in (self.scale, self.rescale_phi, low, high, self.parallel)]
        return Guidance(knobs[0], knobs[1], (knobs[2], knobs[3]), knobs[4])

    def at(self, level: Tensor) -> "Guidance":
        """What holds at the noise levels (B,) in [0, 1] of a step: plain guidance, where they lie in the interval."""
        low, high = (torch.as_tensor(end, device=level.device) for end in self.interval)
        guided = (low <= level) & (level <= high)
        if bool(guided.all()):
            return Guidance(self.scale, self.rescale_phi, parallel=self.parallel)
        scale, phi = (torch.as_tensor(knob, device=level.device) for knob in (self.scale, self.rescale_phi))
        return Guidance(torch.where(guided, scale, 1.0), torch.where(guided, phi, 0.0), parallel=self.parallel)

    @property
    def needs_unconditional(self) -> bool:
        """False only where every sample has scale 1, when the unconditional branch cancels."""
        return bool((torch.as_tensor(self.scale) != 1).any())

    @property
    def needs_conditional(self) -> bool:
        """False only where every sample has scale 0, no rescaling asks for the conditional std, nor a projection."""
        return bool((torch.as_tensor(self.scale) != 0).any() or (torch.as_tensor(self.rescale_phi) != 0).any()) or (
            self.projects
        )

    @property
    def projects(self) -> bool:
        """Whether any sample's parallel part is weighted, which is for predicted x0 alone."""
        return bool((torch.as_tensor(self.parallel) != 1).any())

    def mix(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """Both branches (B, C, H, W) as one, not rescaled; predicted x0, where it projects."""
        scale, difference = per_sample(self.scale, conditional), conditional - unconditional
        if not self.projects:
            return unconditional + scale * difference
        parallel, orthogonal = split(difference, conditional)
        return conditional + (scale - 1) * (orthogonal + per_sample(self.parallel, conditional) * parallel)

    def terms(self, conditional: Tensor, unconditional: Tensor, mixed: Tensor) -> GuidanceTerms:
        """For plots: `mixed` is what `mix` made of both, in their space."""
        ratio = std_ratio(conditional, mixed)
        gain = gain_of(ratio, self.rescale_phi)
        return GuidanceTerms(conditional, unconditional, ratio.flatten(), gain.flatten())
