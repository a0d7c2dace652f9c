"""A network under a condition, as samplers take it: guided, switched on the way, held in range, partly known."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lab.conditioning import Condition
from lab.diffusion import THRESHOLDINGS, Guidance, Parameterization, Prediction
from lab.diffusion.guidance import per_sample
from lab.diffusion.thresholding import clip_fraction


@dataclass(frozen=True)
class Switch:
    """Another condition from some time on, which is each sample's own: a level switches as a whole."""

    condition: Condition  # (B, ...)
    time: Tensor  # (B,) int64: it holds for evaluations at t <= time, so that -1 is never

    def to(self, device: torch.device) -> "Switch":
        """The same on another device."""
        return Switch(self.condition.to(device), self.time.to(device))

    def at(self, t: Tensor, before: Condition) -> Condition:
        """The condition that holds at t (B,)."""
        return Condition.where(t <= self.time, self.condition, before)


@dataclass(frozen=True)
class Known:
    """The part of a picture that is given, when the rest is to be painted."""

    x0: Tensor  # (B, C, H, W)
    mask: Tensor  # (B, 1, H, W): 1 where x0 is given, 0 where it is not

    def __getitem__(self, rows: Tensor) -> "Known":
        return Known(self.x0[rows], self.mask[rows])

    def to(self, device: torch.device) -> "Known":
        """The same on another device."""
        return Known(self.x0.to(device), self.mask.to(device))


@dataclass(frozen=True)
class GuidedDenoiser:
    """(x_t (B, C, H, W), t (B,)) -> Prediction.

    Both branches of guidance are one network call, and a step that needs one of them computes one. In pixel space
    predicted x0 is held in [-1, 1] as `thresholding` says, and known pixels take the place of predicted ones (the
    projection of DDNM, Wang et al. 2023); eps is re-derived from it, so that both move a deterministic
    sampler consistently.
    """

    network: Callable[[Tensor, Tensor, Condition], Tensor]
    formulas: Parameterization
    condition: Condition
    null: Condition
    guidance: Guidance
    thresholding: str | None = None  # None for latents, which have no range to be held in
    switch: Switch | None = None
    known: Known | None = None

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        prediction = self._guided(x, t)
        if self.thresholding is None and self.known is None:
            return prediction
        x0, outside = prediction.x0, None
        if self.thresholding is not None:
            x0, outside = THRESHOLDINGS[self.thresholding](x0), clip_fraction(x0)
        if self.known is not None:
            x0 = torch.lerp(x0, self.known.x0, self.known.mask)
        return replace(self.formulas.from_x0(x0, x, t), guidance=prediction.guidance, clip_fraction=outside)

    def _guided(self, x: Tensor, t: Tensor) -> Prediction:
        formulas = self.formulas
        condition = self.condition if self.switch is None else self.switch.at(t, self.condition)
        now = self.guidance.at(t / max(1, formulas.schedule.timesteps - 1))
        if condition.vector.shape[1] == 0 or not now.needs_unconditional:
            return formulas.predict(self.network(x, t, condition), x, t)
        if not now.needs_conditional:
            return formulas.predict(self.network(x, t, self.null), x, t)
        both = Condition.cat(condition, self.null)
        c, u = self.network(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        if now.projects:
            of_x0 = formulas.from_x0(now.mix(formulas.predict(c, x, t).x0, formulas.predict(u, x, t).x0), x, t)
            mixed = formulas.target(of_x0.x0, of_x0.eps, t)
        else:
            mixed = now.mix(c, u)
        terms = now.terms(c, u, mixed)
        return replace(formulas.predict(mixed * per_sample(terms.gain, mixed), x, t), guidance=terms)
