"""How a run is sampled from where nobody says otherwise, and what belongs to which sample."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar

import torch
from torch import Tensor

from lab.conditioning import Condition, Conditioner
from lab.denoising import Known
from lab.diffusion import SAMPLERS, THRESHOLDINGS, Guidance
from lab.diffusion.guidance import Knob, check_interval
from lab.diffusion.schedule import SPACINGS
from lab.errors import LabError


@dataclass(frozen=True)
class SamplingDefaults:
    """What `sample` does where it is not told; a run keeps the values it was trained to be looked at with."""

    sampler: str = "ddim"
    num_inference_steps: int = 40
    spacing: str = "trailing"
    guidance_scale: float = 3.0
    rescale_phi: float = 0.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_parallel: float = 1.0
    thresholding: str = "static"
    batch_size: int = 64

    def __post_init__(self) -> None:
        """LabError for values that cannot be."""
        object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))
        check_interval("sampling.guidance_interval", self.guidance_interval)
        for key, known in (("sampler", SAMPLERS), ("spacing", SPACINGS), ("thresholding", THRESHOLDINGS)):
            if getattr(self, key) not in known:
                raise LabError(f"sampling.{key}={getattr(self, key)}: use one of {', '.join(known)}")
        for key in ("guidance_scale", "rescale_phi", "guidance_parallel"):
            if not isfinite(getattr(self, key)):
                raise LabError(f"sampling.{key}={getattr(self, key)}: use a finite number")
        for key in ("num_inference_steps", "batch_size"):
            if getattr(self, key) < 1:
                raise LabError(f"sampling.{key}={getattr(self, key)}: use at least 1")

    @property
    def guidance(self) -> Guidance:
        """These defaults of guidance as what the denoiser takes."""
        return Guidance(self.guidance_scale, self.rescale_phi, self.guidance_interval, self.guidance_parallel)


def check_guided(conditioner: Conditioner, asked: Mapping[str, Any]) -> None:
    """LabError where guidance is asked for (None: not) of a run that has nothing to be guided by."""
    for key, value in asked.items():
        if value is not None and conditioner.dim == 0:
            raise LabError(f"{key}={value}: this run is unconditional, and there is nothing to guide; leave it out")


@dataclass(frozen=True)
class Rows:
    """`count` samples of each request, the first request's first, and which of several values each takes."""

    requests: int
    count: int

    @classmethod
    def needed(cls, count: int, requests: int, *others: int) -> "Rows":
        """For requests, and other parts with a row for all, for a request or for a sample; else they decide."""
        return cls(max(requests, *(n for n in others if n not in (1, requests, requests * count)), 0), count)

    @property
    def total(self) -> int:
        """Number of samples."""
        return self.requests * self.count

    def each(self, name: str, values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        """One number, or one a sample, as (total,); LabError for any other length."""
        given = torch.as_tensor(values).flatten().cpu()
        if not bool(given.isfinite().all()):
            raise LabError(f"{name}={float(given[~given.isfinite()][0]):g}: use finite numbers")
        if not dtype.is_floating_point and bool((given != given.round()).any()):
            raise LabError(f"{name}={float(given[given != given.round()][0]):g}: use whole numbers")
        given = given.to(dtype)
        if len(given) not in (1, self.total):
            raise LabError(f"{name} has {len(given)} values for {self.total} samples: give one, or one each")
        return given.expand(self.total)

    def of(self, name: str, given: int) -> Tensor:
        """Which of `given` rows each sample takes (total,): one for all, one a request, or one a sample."""
        if given not in (1, self.requests, self.total):
            raise LabError(f"{name} has {given} rows for {self.total} samples: give one, or one each")
        return torch.arange(self.total) // (self.total // given)

    def asked(
        self,
        condition: Condition,
        guidance: Guidance,
        numbers: Sequence[int] | None,
        then: Condition | None,
        switch_step: Sequence[int] | Tensor | int | None,
        latents: Tensor | None,
        known: Known | None,
    ) -> "Asked":
        """Every part with a row a sample; LabError for what does not divide, or is given without what belongs to it."""
        if (then is None) != (switch_step is None):
            raise LabError("then and switch_step belong together: give the other condition and the step from which on")
        return Asked(
            condition,
            self.of("condition", len(condition)),
            guidance,
            self.each("numbers", range(self.total) if numbers is None else numbers, torch.int64),
            then,
            None if then is None else self.of("then", len(then)),
            None if switch_step is None else self.each("switch_step", switch_step, torch.int64),
            None if latents is None else latents[self.of("latents", len(latents))],
            None if known is None else known[self.of("known", len(known.x0))],
        )

    def guidance(
        self,
        defaults: SamplingDefaults,
        scale: Knob | None,
        phi: Knob | None,
        interval: Sequence[Knob] | None,
        parallel: Knob | None,
    ) -> Guidance:
        """Every knob as (total,), the default where it is None; LabError for what cannot be."""
        interval = defaults.guidance_interval if interval is None else interval
        check_interval("guidance_interval", interval)
        low, high = (self.each("guidance_interval", end) for end in interval)
        return Guidance(
            self.each("guidance_scale", defaults.guidance_scale if scale is None else scale),
            self.each("rescale_phi", defaults.rescale_phi if phi is None else phi),
            (low, high),
            self.each("guidance_parallel", defaults.guidance_parallel if parallel is None else parallel),
        )


@dataclass(frozen=True)
class Asked:
    """What every sample is asked for and starts from, a row a sample; None where there is nothing of the kind.

    Of conditions, which may have many choices, which row each sample takes.
    """

    condition: Condition
    told: Tensor
    guidance: Guidance
    numbers: Tensor
    then: Condition | None
    told_then: Tensor | None
    switch_step: Tensor | None
    latents: Tensor | None
    known: Known | None

    def of(self, chunk: Tensor) -> dict[str, Any]:
        """The rows of some samples (B,), as `DiffusionModel.states` takes them."""
        return {
            "condition": self.condition[self.told[chunk]],
            "guidance": self.guidance.rows(chunk),
            "numbers": self.numbers[chunk].tolist(),
            "then": None if self.then is None or self.told_then is None else self.then[self.told_then[chunk]],
            "switch_step": taken(self.switch_step, chunk),
            "latents": taken(self.latents, chunk),
            "known": taken(self.known, chunk),
        }


Part = TypeVar("Part", Condition, Tensor, Known)


def taken(part: Part | None, rows: Tensor) -> Part | None:
    """These rows of a part; None of none."""
    return None if part is None else part[rows]


def check_rows(count: int, **given: Sized | None) -> None:
    """LabError unless each of what is given has a row a sample."""
    for key, rows in given.items():
        if rows is not None and len(rows) != count:
            raise LabError(f"{key} has {len(rows)} rows for {count} samples: give one each")


def check_start(sampler: str, times: Tensor, start_step: int, latents: Tensor | None) -> None:
    """LabError unless the way can begin at evaluation start_step of those at `times` (S,)."""
    if not 0 <= start_step < len(times) or (start_step and latents is None):
        raise LabError(f"start_step={start_step}: use 0 to {len(times) - 1}, and above 0 give latents of that level")
    if start_step and times[start_step] == times[start_step - 1]:
        raise LabError(f"start_step={start_step}: {sampler} is at that level a second time; use {start_step - 1}")


def switch_times(times: Tensor, switch_step: Tensor | int | None, count: int) -> Tensor:
    """The time (B,) of evaluation switch_step among those at `times` (S,); -1 for the one after the last."""
    if switch_step is None:
        raise LabError("then is given without switch_step: say from which evaluation on it holds")
    steps = torch.as_tensor(switch_step).cpu()
    if bool(((steps < 0) | (steps > len(times))).any()):
        raise LabError(f"switch_step={steps.tolist()}: use 0, from the start, to {len(times)}, never")
    return torch.cat([times, torch.tensor([-1])])[steps].expand(count)
