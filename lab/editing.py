"""From pictures that are there: back to their noise, part of the way and down again, or all but a part of them.

rose, daisy = model.condition(classes=["rose"]), model.condition(classes=["daisy"])
model.sample(condition=daisy, **invert(model, pictures, rose).start(10))                  # keeps the composition
model.sample(condition=daisy, **renoise(model, pictures, rose, start_step=20).start())    # SDEdit, img2img
model.sample(condition=daisy, **inpaint(model, pictures, mask))                           # stays where mask is 1
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from lab.device import Precision
from lab.diffusion import Guidance
from lab.diffusion.inversion import ddim_inversion
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.quality import psnr
from lab.render import from_uint8
from lab.seeding import noise

LEVELS = ("num_inference_steps", "sampler", "spacing")  # what decides which evaluation is at which level of noise
Pictures = Tensor | Sequence[str | Path | Image.Image]


@dataclass(frozen=True)
class Trajectory:
    """Pictures at every level of a sampler, and what comes back from the noisiest of them.

    x                levels (S + 1, B, C, h, w): x[k] is what evaluation k starts from, x[S] the pictures' latents
    settings         of `sample` that the levels belong to
    pictures         (B, 3, H, W) in [-1, 1], that it began with
    times            of the evaluations (S,), as `DiffusionModel.times` tells them from the settings
    sample_back      samples again from x[start_step], under the condition it was made with, by the model as it is then
    """

    x: Tensor
    settings: dict[str, Any]
    start_step: int
    pictures: Tensor
    times: Callable[..., Tensor]
    sample_back: Callable[[], Tensor]

    @cached_property
    def reconstruction(self) -> Tensor:
        """(B, 3, H, W) in [-1, 1]: what comes back from the noisiest level, sampled when it is first asked for."""
        return self.sample_back()

    @cached_property
    def psnr(self) -> Tensor:
        """(B,) of the reconstruction, in dB."""
        return psnr(self.reconstruction, self.pictures)

    def start(self, step: int | None = None, **changes: Any) -> dict[str, Any]:
        """What `sample` needs to go on from evaluation `step`, by default the noisiest level; changes, e.g. sampler.

        Raises LabError for a step that was not reached, and for changes by which its level would be another's.
        """
        step = self.start_step if step is None else step
        if not self.start_step <= step < len(self.x) - 1:
            raise LabError(f"step={step}: use {self.start_step} to {len(self.x) - 2}, the levels that were reached")
        settings = {**self.settings, **changes}
        there, here = (self.times(**{key: of.get(key) for key in LEVELS}) for of in (self.settings, settings))
        if step >= len(here) or here[step] != there[step]:
            told = f"nothing of {len(here)} evaluations" if step >= len(here) else f"t = {int(here[step])}"
            what = ", ".join(f"{key}={settings[key]}" for key in LEVELS if key in changes)
            raise LabError(f"{what}: evaluation {step} is of t = {int(there[step])}, and {told} then; invert so, too")
        return {"latents": self.x[step], "start_step": step, **settings}


def pictures(model: DiffusionModel, images: Pictures) -> Tensor:
    """(B, 3, H, W) in [-1, 1]: a tensor as it is; files and PIL images cut to the central square of model.image_size.

    Raises LabError for a file that is no image, and for a tensor of another shape or range.
    """
    if isinstance(images, str | Path | Image.Image):
        raise LabError("images: give a list, images=[...]")
    if not isinstance(images, Tensor):
        if not images:
            raise LabError("images=[]: give at least one")
        rows = np.stack([square(image, model.image_size) for image in images])
        return from_uint8(torch.from_numpy(rows))
    if images.ndim != 4 or images.shape[1] != 3:
        raise LabError(f"images {tuple(images.shape)}: a tensor must be (B, 3, H, W)")
    if not bool((images.abs() <= 1).all()):
        raise LabError("images: a tensor must lie in [-1, 1], and be finite")
    return images.float()


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

    In single precision, whatever the model samples in: guidance other than 1 makes the way back sensitive to every
    error (Mokady et al. 2023). A text is told as `sample` tells it with seed 0. Raises LabError for images, steps and
    numbers of iterations that cannot be.
    """
    if fixed_point_iterations < 1:
        raise LabError(f"fixed_point_iterations={fixed_point_iterations}: use at least 1")
    targets, latents, condition = _encoded(model, images, condition)
    times, settings = _way_from(model, start_step, num_inference_steps, spacing)
    model.eval()
    thresholding = "none" if model.autoencoder.bounded else None  # a clipped x0 has no unique way back
    under = {"condition": condition, "guidance_scale": guidance_scale, "thresholding": thresholding}
    with model.in_precision("fp32"):
        denoise = model.denoiser(condition, Guidance(guidance_scale), thresholding)
        states = ddim_inversion(denoise, latents, model.parameterization.schedule, times, fixed_point_iterations)
        levels = [latents, *(state.x_t for state in states)]
    return _trajectory(model, targets, levels, start_step, settings, under, precision="fp32")


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
    given = pictures(model, images)
    numbered = range(len(given)) if numbers is None else numbers
    if len(numbered) != len(given):
        raise LabError(f"numbers has {len(numbered)} values for {len(given)} images: give one each")
    targets, latents, condition = _encoded(model, given, condition, seed, numbered)
    times, settings = _way_from(model, start_step, num_inference_steps, spacing)
    eps = noise(latents.shape[1:], seed, numbered).to(latents)
    schedule = model.parameterization.schedule
    levels = [latents]
    for t in reversed(times.tolist()):
        alpha, sigma = schedule.level(t)
        levels.append(alpha * latents + sigma * eps)
    under = {"condition": condition, "guidance_scale": 1.0}
    return _trajectory(model, targets, levels, start_step, settings, under)


def inpaint(model: DiffusionModel, images: Pictures, mask: Tensor) -> dict[str, Any]:
    """What `sample` needs to keep images where mask (H, W) or (B, 1, H, W) is 1 and to paint where it is 0.

    At each evaluation known pixels take the place of predicted ones (DDNM, Wang et al. 2023); nothing is resampled as
    RePaint does. With plms and lms, whose last step mixes eps of several, they stay only nearly. In latent space a
    latent is known where all of its pixels are.
    Raises LabError for a mask of another size.
    """
    targets = pictures(model, images).to(model.device)
    height, width = targets.shape[2:]
    model.check_size(height, width)
    if tuple(mask.shape) not in ((height, width), (1, 1, height, width), (len(targets), 1, height, width)):
        raise LabError(f"mask {tuple(mask.shape)}: use {(height, width)}, or {(len(targets), 1, height, width)}")
    masks = mask.to(targets).view(-1, 1, height, width)
    if not bool(((masks >= 0) & (masks <= 1)).all()):
        raise LabError("mask: use values from 0, paint, to 1, keep")
    factor = model.autoencoder.factor
    known = 1 - F.max_pool2d(1 - masks, factor) if factor > 1 else masks
    latents = model.autoencoder.encode(targets)
    return {"known": Known(latents, known.expand(len(latents), -1, -1, -1)), "height": height, "width": width}


def _encoded(
    model: DiffusionModel, images: Pictures, condition: Condition, seed: int = 0, numbers: Sequence[int] | None = None
) -> tuple[Tensor, Tensor, Condition]:
    """Images and their latents on the model's device, and a row of the condition for each, told in one way."""
    targets = pictures(model, images).to(model.device)
    model.check_size(*targets.shape[2:])
    if len(condition) not in (1, len(targets)):
        raise LabError(f"condition has {len(condition)} rows for {len(targets)} images: give one, or one each")
    rows = condition.to(model.device).map(lambda part: part.expand(len(targets), *part.shape[1:]))
    numbered = range(len(targets)) if numbers is None else numbers
    return targets, model.autoencoder.encode(targets), rows.chosen(seed, numbered)


def _way_from(
    model: DiffusionModel, start_step: int, num_inference_steps: int | None, spacing: str | None
) -> tuple[Tensor, dict[str, Any]]:
    """Times (S - start_step,) of DDIM's evaluations from start_step on, and settings of `sample` that have them.

    Raises LabError for a step that there is not.
    """
    times = model.times(num_inference_steps, "ddim", spacing)
    if not 0 <= start_step < len(times):
        raise LabError(f"start_step={start_step}: use 0 to {len(times) - 1}")
    settings = {"sampler": "ddim", "num_inference_steps": len(times), "spacing": spacing or model.sampling.spacing}
    return times[start_step:], settings


def _trajectory(
    model: DiffusionModel,
    targets: Tensor,
    levels: list[Tensor],
    start_step: int,
    settings: dict[str, Any],
    under: dict[str, Any],
    precision: Precision | None = None,
) -> Trajectory:
    """All levels in the order of evaluations, those not reached as NaN, and the way back from the noisiest.

    precision   of the way back; None: the model's
    """
    missing = [torch.full_like(levels[0], torch.nan)] * start_step
    x = torch.stack(missing + levels[::-1])
    start = {"latents": x[start_step], "start_step": start_step, **settings}
    in_precision = precision or model.precision  # which may change before the way back is asked for
    plain: dict[str, Any] = {"rescale_phi": 0.0, "guidance_interval": (0, 1), "guidance_parallel": 1.0}

    def back() -> Tensor:
        with model.in_precision(in_precision):
            made = model.sample(**under, **plain, **start, output="tensor")
        assert isinstance(made, Tensor)
        return made

    return Trajectory(x, settings, start_step, targets.cpu(), model.times, back)
