"""How a run is sampled from where nobody says otherwise, and what belongs to which sample."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lab.diffusion import SAMPLERS, THRESHOLDINGS, Guidance
from lab.diffusion.guidance import check_interval
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
        for key in ("num_inference_steps", "batch_size"):
            if getattr(self, key) < 1:
                raise LabError(f"sampling.{key}={getattr(self, key)}: use at least 1")

    @property
    def guidance(self) -> Guidance:
        """These defaults of guidance as what the denoiser takes."""
        return Guidance(self.guidance_scale, self.rescale_phi, self.guidance_interval, self.guidance_parallel)


@dataclass(frozen=True)
class Rows:
    """`count` samples of each request, the first request's first, and which of several values each takes."""

    requests: int
    count: int

    @property
    def total(self) -> int:
        """Number of samples."""
        return self.requests * self.count

    def each(self, name: str, values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        """One number, or one a sample, as (total,); LabError for any other length."""
        given = torch.as_tensor(values, dtype=dtype).flatten()
        if len(given) not in (1, self.total):
            raise LabError(f"{name} has {len(given)} values for {self.total} samples: give one, or one each")
        return given.expand(self.total)

    def of(self, name: str, given: int) -> Tensor:
        """Which of `given` rows each sample takes (total,): one for all, one a request, or one a sample."""
        if given not in (1, self.requests, self.total):
            raise LabError(f"{name} has {given} rows for {self.total} samples: give one, or one each")
        return torch.arange(self.total) // (self.total // given)
