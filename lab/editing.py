"""From pictures that are there: back to their noise, part of the way and down again, or all but a part of them.

inverted = invert(model, pictures, model.condition(classes=["rose"]))
edited = model.sample(classes=["daisy"], **inverted.start(10), sampler="ddim")

model.sample(classes=["daisy"], **renoise(model, pictures, start_step=20))      # SDEdit, img2img
model.sample(classes=["daisy"], **inpaint(model, pictures, mask))               # where mask is 1 they stay
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lab.conditioning import Condition
from lab.data.images import square
from lab.denoising import Known
from lab.diffusion import Guidance
from lab.diffusion.inversion import ddim_inversion
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.seeding import noise

Pictures = Tensor | Sequence[str | Path | Image.Image]


@dataclass(frozen=True)
class Trajectory:
    """Pictures at every level of a sampler, and what comes back from the noisiest of them.

    x                levels (S + 1, B, C, h, w): x[k] is what evaluation k starts from, x[S] the pictures' latents
    settings         of `sample` that the levels belong to
    reconstruction   (B, 3, H, W) in [-1, 1]: sampled again from x[start_step], under the condition it was made with
    psnr             (B,) of the reconstruction, in dB
    """

    x: Tensor
    settings: dict[str, Any]
    start_step: int
    reconstruction: Tensor
    psnr: Tensor

    def start(self, step: int | None = None) -> dict[str, Any]:
        """What `sample` needs to go on from evaluation `step`; from the noisiest level by default."""
        step = self.start_step if step is None else step
        if not self.start_step <= step < len(self.x) - 1:
            raise LabError(f"step={step}: use {self.start_step} to {len(self.x) - 2}, the levels that were reached")
        return {"latents": self.x[step], "start_step": step, **self.settings}


def pictures(model: DiffusionModel, images: Pictures) -> Tensor:
    """(B, 3, H, W) in [-1, 1]: a tensor as it is; files and PIL images cut to the central square of model.image_size.

    Raises LabError for a file that is no image, and for a tensor of another shape or range.
    """
    if not isinstance(images, Tensor):
        rows = np.stack([square(image, model.image_size) for image in images])
        return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 127.5 - 1
    if images.ndim != 4 or images.shape[1] != 3 or float(images.abs().max()) > 1:
        raise LabError(f"images: a tensor must be (B, 3, H, W) in [-1, 1], not {tuple(images.shape)}")
    return images.float()


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of images (B, 3, H, W) in [-1, 1], whose peak is 2."""
    error = (one - other).square().flatten(1).mean(1)
    return 20 * math.log10(2) - 10 * error.log10()


@torch.no_grad()
def invert(
    model: DiffusionModel,
    images: Pictures,
    condition: Condition,
    *,
    guidance_scale: float = 1.0,
    num_inference_steps: int | None = None,
    spacing: str | None = None,
    start_step: int = 0,
    fixed_point_iterations: int = 3,
) -> Trajectory:
    """DDIM inversion of images under a condition (1 or B rows), up to the level of evaluation start_step.

    Guidance other than 1 makes the way back sensitive to every error (Mokady et al. 2023). Raises LabError for images,
    steps and numbers of iterations that cannot be.
    """
    if fixed_point_iterations < 1:
        raise LabError(f"fixed_point_iterations={fixed_point_iterations}: use at least 1")
    targets = pictures(model, images).to(model.device)
    times = _times_from(model, start_step, num_inference_steps, spacing)
    condition = condition[torch.zeros(len(targets), dtype=torch.long)] if len(condition) == 1 else condition
    latents = model.autoencoder.encode(targets)
    model.network.check_size(*latents.shape[2:])
    model.eval()
    thresholding = "none" if model.autoencoder.bounded else None  # a clipped x0 has no unique way back
    denoise = model.denoiser(condition, Guidance(guidance_scale), thresholding)
    states = ddim_inversion(denoise, latents, model.parameterization.schedule, times, fixed_point_iterations)
    levels = [latents, *(state.x_t for state in states)]
    settings = {"sampler": "ddim", "num_inference_steps": num_inference_steps, "spacing": spacing}
    under = {"guidance_scale": guidance_scale, "guidance_interval": (0, 1), "thresholding": thresholding}
    return _trajectory(model, targets, levels, start_step, settings, {"condition": condition, **under})


@torch.no_grad()
def renoise(
    model: DiffusionModel,
    images: Pictures,
    condition: Condition,
    *,
    start_step: int,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    num_inference_steps: int | None = None,
    spacing: str | None = None,
) -> Trajectory:
    """Images with noise up to the level of evaluation start_step (SDEdit, Meng et al. 2022): img2img's start.

    One noise an image, by (seed, number), at all levels. Raises LabError as `invert` does.
    """
    targets = pictures(model, images).to(model.device)
    times = _times_from(model, start_step, num_inference_steps, spacing)
    condition = condition[torch.zeros(len(targets), dtype=torch.long)] if len(condition) == 1 else condition
    latents = model.autoencoder.encode(targets)
    eps = noise(latents.shape[1:], seed, range(len(latents)) if numbers is None else numbers).to(latents)
    schedule = model.parameterization.schedule
    levels = [latents]
    for t in reversed(times.tolist()):
        alpha, sigma = schedule.level(t)
        levels.append(alpha * latents + sigma * eps)
    settings = {"sampler": "ddim", "num_inference_steps": num_inference_steps, "spacing": spacing}
    under = {"condition": condition, "guidance_scale": 1.0}
    return _trajectory(model, targets, levels, start_step, settings, under)


def inpaint(model: DiffusionModel, images: Pictures, mask: Tensor) -> dict[str, Any]:
    """What `sample` needs to keep images where mask (H, W) or (B, 1, H, W) is 1 and to paint where it is 0.

    At each evaluation known pixels take the place of predicted ones (DDNM, Wang et al. 2023), with every sampler;
    nothing is resampled as RePaint does. In latent space a latent is known where all of its pixels are.
    Raises LabError for a mask of another size.
    """
    targets = pictures(model, images).to(model.device)
    masks = mask.to(targets).reshape(-1, 1, *mask.shape[-2:])
    if masks.shape[2:] != targets.shape[2:] or len(masks) not in (1, len(targets)):
        raise LabError(f"mask {tuple(mask.shape)}: images are {tuple(targets.shape)}; give (H, W) or one an image")
    factor = model.autoencoder.factor
    known = 1 - F.max_pool2d(1 - masks, factor) if factor > 1 else masks
    latents = model.autoencoder.encode(targets)
    height, width = targets.shape[2:]
    return {"known": Known(latents, known.expand(len(latents), -1, -1, -1)), "height": height, "width": width}


def _times_from(model: DiffusionModel, start_step: int, num_inference_steps: int | None, spacing: str | None) -> Tensor:
    times = model.times(num_inference_steps, "ddim", spacing)
    if not 0 <= start_step < len(times):
        raise LabError(f"start_step={start_step}: use 0 to {len(times) - 1}")
    return times[start_step:]


def _trajectory(
    model: DiffusionModel,
    targets: Tensor,
    levels: list[Tensor],
    start_step: int,
    settings: dict[str, Any],
    under: dict[str, Any],
) -> Trajectory:
    """All levels in the order of evaluations, those not reached as NaN, and the way back from the noisiest."""
    missing = [torch.full_like(levels[0], torch.nan)] * start_step
    x = torch.stack(missing + levels[::-1])
    start = {"latents": x[start_step], "start_step": start_step, **settings}
    back = model.sample(**under, **start, output="tensor")
    assert isinstance(back, Tensor)
    return Trajectory(x, settings, start_step, back, psnr(back, targets.cpu()))
