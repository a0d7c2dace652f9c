"""How a run is sampled from where nobody says otherwise."""

from dataclasses import dataclass

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
