"""A diffusion model as people use it: network, conditioner, autoencoder and formulas behind one `sample`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from lab.autoencoders import Autoencoder
from lab.conditioning import Condition, Conditioner
from lab.conditioning.base import Request
from lab.denoising import GuidedDenoiser, Known, Switch
from lab.device import Precision, computes_bf16
from lab.diffusion import (
    SAMPLERS,
    THRESHOLDINGS,
    WITH_ETA,
    Guidance,
    Parameterization,
    SamplerState,
    evaluation_times,
)
from lab.diffusion.guidance import Knob
from lab.errors import LabError
from lab.networks import UNet
from lab.render import to_pil
from lab.sampling import Rows, SamplingDefaults, check_rows, check_start, switch_times
from lab.seeding import noise


class DiffusionModel(nn.Module):
    """A conditional diffusion model in pixel or latent space.

    image_size   sides of a sample in pixels unless another is asked for
    precision    of the network when sampling: "fp32", "bf16", or "auto", bf16 where the hardware computes it; sampler
                 and formulas stay in single precision
    origin       where the weights come from (run, step, hash)
    """

    def __init__(
        self,
        network: UNet,
        conditioner: Conditioner,
        autoencoder: Autoencoder,
        parameterization: Parameterization,
        image_size: int,
        sampling: SamplingDefaults | None = None,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.network, self.conditioner, self.autoencoder = network, conditioner, autoencoder
        self.parameterization = parameterization
        self.image_size = image_size
        self.sampling = sampling or SamplingDefaults()
        self.precision: Precision = precision
        self.origin: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(self.network.parameters()).device

    @property
    def provenance(self) -> dict[str, Any]:
        """What is told of everything that is made: the origin of the weights, and the precision that is used now."""
        return {**self.origin, "precision": "bf16" if computes_bf16(self.precision, self.device) else "fp32"}

    @contextmanager
    def in_precision(self, precision: Precision) -> Iterator[None]:
        """Another precision for what is computed while this is open; `states` computes as it is gone through."""
        before, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = before

    @torch.no_grad()
    def condition(
        self,
        prompts: Sequence[str] | None = None,
        *,
        classes: Sequence[str | int] | None = None,
        images: Sequence[str | Path | Image.Image] | None = None,
    ) -> Condition:
        """What the network is told, a row a prompt, class or image (N, D), to be mixed and given to `sample`.

        Raises LabError when this kind of run cannot serve the request.
        """
        condition: Condition = self.conditioner(
            self.conditioner.inputs(Request(prompts, classes, images)).to(self.device)
        )
        return condition

    def times(
        self, num_inference_steps: int | None = None, sampler: str | None = None, spacing: str | None = None
    ) -> Tensor:
        """The times (S,) at which a sampler evaluates the network; LabError for what it cannot have."""
        name = sampler or self.sampling.sampler
        if name not in SAMPLERS:
            raise LabError(f"sampler={name}: use one of {', '.join(SAMPLERS)}")
        steps = self.sampling.num_inference_steps if num_inference_steps is None else num_inference_steps
        return evaluation_times(name, self.parameterization.schedule, steps, spacing or self.sampling.spacing)

    def denoiser(
        self,
        condition: Condition,
        guidance: Guidance,
        thresholding: str | None = None,
        switch: Switch | None = None,
        known: Known | None = None,
    ) -> GuidedDenoiser:
        """What samplers take, on the model's device. LabError for a thresholding that it cannot have."""
        if thresholding is not None and thresholding not in THRESHOLDINGS:
            raise LabError(f"thresholding={thresholding}: use one of {', '.join(THRESHOLDINGS)}")
        if thresholding not in (None, "none") and not self.autoencoder.bounded:
            raise LabError(f"thresholding={thresholding}: latents have no range to be held in; it is for pixels")
        held = (thresholding or self.sampling.thresholding) if self.autoencoder.bounded else None
        null = self.conditioner.null(len(condition)).map(lambda part: part.to(self.device))
        return GuidedDenoiser(self._network, self.parameterization, condition, null, guidance, held, switch, known)

    def _network(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=computes_bf16(self.precision, self.device)):
            out: Tensor = self.network(x.contiguous(memory_format=torch.channels_last), t, condition)
        return out.float()

    def states(
        self,
        condition: Condition,
        *,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
        guidance: Guidance | None = None,
        sampler: str | None = None,
        num_inference_steps: int | None = None,
        spacing: str | None = None,
        eta: float | None = None,
        thresholding: str | None = None,
        size: tuple[int, int] | None = None,
        then: Condition | None = None,
        switch_step: Tensor | int | None = None,
        latents: Tensor | None = None,
        start_step: int = 0,
        known: Known | None = None,
    ) -> Iterator[SamplerState]:
        """Every state on the way from noise to latents, under a condition of B rows.

        numbers: number of each sample, which with `seed` decides its noise; 0..B-1 by default.
        num_inference_steps: evaluations of the network, exactly, whatever the sampler; spacing: of their levels.
        then: the condition (B rows) from evaluation switch_step on, a number or (B,): 0 is from the start, S never; a
        level that is evaluated twice, as heun does, switches as a whole.
        latents: (B, C, h, w) to start from instead of noise, at the level of evaluation number start_step. A sampler
        that remembers (plms, lms, dpmpp_2m, unipc) starts anew there, and comes out elsewhere than undivided.
        known: pixels or latents that are given.
        Raises LabError for a sampler, eta, step count, spacing, thresholding, size or start that it cannot have.
        """
        name, times = sampler or self.sampling.sampler, self.times(num_inference_steps, sampler, spacing)
        if eta is not None and not 0 <= eta <= 1:
            raise LabError(f"eta={eta}: use 0 to 1, the share of fresh noise")
        if eta is not None and name not in WITH_ETA:
            raise LabError(f"eta={eta}: {name} adds no noise; {', '.join(WITH_ETA)} do")
        check_start(name, times, start_step, latents)
        numbered = range(len(condition)) if numbers is None else numbers
        x = self._start(size, latents, seed, numbered)
        check_rows(len(condition), numbers=numbered, latents=x, then=then, known=None if known is None else known.x0)
        if known is not None and known.x0.shape != x.shape:
            raise LabError(f"known {tuple(known.x0.shape)}: what is sampled is {tuple(x.shape)}")
        condition, known = condition.to(self.device), None if known is None else known.to(self.device)
        switch = None
        if then is not None:
            switch = Switch(then, switch_times(times, switch_step, len(condition))).to(self.device)

        def step_noise(step: int) -> Tensor:
            return noise(x.shape[1:], seed, numbered, stream=f"step {step + start_step}").to(self.device)

        self.eval()
        denoise = self.denoiser(condition, guidance or self.sampling.guidance, thresholding, switch, known)
        options = {} if eta is None else {"eta": eta}
        sampling = SAMPLERS[name](denoise, x, self.parameterization.schedule, times[start_step:], step_noise, **options)
        return (replace(state, step=state.step + start_step) for state in sampling) if start_step else sampling

    def _start(self, size: tuple[int, int] | None, latents: Tensor | None, seed: int, numbers: Sequence[int]) -> Tensor:
        """The noise of such samples, or the latents given in its place, on the model's device."""
        channels = self.autoencoder.latent_channels
        if latents is None:
            sides = self.check_size(*(size or (self.image_size, self.image_size)))
            return noise((channels, *sides), seed, numbers).to(self.device)
        if latents.ndim != 4 or latents.shape[1] != channels:
            raise LabError(f"latents {tuple(latents.shape)}: use (B, {channels}, height, width)")
        sides = (latents.shape[2], latents.shape[3])
        self.network.check_size(*sides)
        if size is not None and self.check_size(*size) != sides:
            raise LabError(f"size {size[0]}x{size[1]}: the latents given are {sides[0]}x{sides[1]}; leave it out")
        return latents.to(self.device, torch.float32)

    def check_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides of the latents of such images; LabError unless autoencoder and network can have them."""
        self.autoencoder.check_size(height, width)
        factor, whole = self.autoencoder.factor, self.autoencoder.factor * self.network.factor
        if factor > 1 and (height % whole or width % whole):
            raise LabError(f"size {height}x{width}: use multiples of {whole} (autoencoder {factor} x network)")
        self.network.check_size(height // factor, width // factor)
        return height // factor, width // factor

    @torch.inference_mode()
    def sample(
        self,
        prompts: Sequence[str] | None = None,
        *,
        classes: Sequence[str | int] | None = None,
        images: Sequence[str | Path | Image.Image] | None = None,
        count: int = 1,
        guidance_scale: Knob | None = None,
        rescale_phi: Knob | None = None,
        guidance_interval: Sequence[Knob] | None = None,
        guidance_parallel: Knob | None = None,
        num_inference_steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
        height: int | None = None,
        width: int | None = None,
        eta: float | None = None,
        spacing: str | None = None,
        thresholding: str | None = None,
        batch_size: int | None = None,
        output: Literal["pil", "tensor"] = "pil",
        condition: Condition | None = None,
        then: Condition | None = None,
        switch_step: Sequence[int] | Tensor | int | None = None,
        latents: Tensor | None = None,
        start_step: int = 0,
        known: Known | None = None,
        callback: Callable[[SamplerState], None] | None = None,
        progress: bool = True,
    ) -> list[Image.Image] | Tensor:
        """`count` samples for each prompt, class (name or number) or image; the first prompt's samples come first.

        Sample i depends on (seed, numbers[i]) and on what is asked for it, not on the others or on `batch_size`.
        numbers: 0, 1, 2, ... by default; samples with equal numbers share their noise, as a sweep wants.
        guidance_scale, rescale_phi: a number, or a tensor with one value a sample.
        guidance_interval: the levels of noise that are guided, 0 to 1, each end a number or one value a sample.
        guidance_parallel: how much of guidance's part parallel to the conditional x0 is kept, likewise.
        thresholding: how predicted pixels are held in range, "static", "dynamic" or "none".
        num_inference_steps: evaluations of the network, exactly, whatever the sampler; spacing: of their levels,
        "trailing" or "karras". eta: share of fresh noise, for the samplers that add any.
        condition: in place of prompts, classes or images, e.g. a mixture of what `condition(...)` gives.
        then: the condition from evaluation switch_step on, which is a number, or one a sample; 0 is from the start.
        latents: what to start from instead of noise, at the level of evaluation start_step (see `lab.editing`).
        known: pixels that are given, for inpainting (see `lab.editing`). Each of the last four has one row for all
        samples, one a request, or one a sample; one condition serves as many as there are latents, too.
        callback: called with every state. progress: a bar, where there is a terminal or a notebook to show it.
        Returns PIL images, or with output="tensor" (B, 3, H, W) float32 in [-1, 1] on the CPU.
        Raises LabError when this kind of run cannot serve the request, or for sizes and steps it cannot have.
        """
        if count < 1:
            raise LabError(f"count={count}: use at least 1")
        if output not in ("pil", "tensor"):
            raise LabError(f"output={output}: use pil or tensor")
        if condition is None:
            condition = self.condition(prompts, classes=classes, images=images)
        elif any(asked is not None for asked in (prompts, classes, images)):
            raise LabError("condition is given together with prompts, classes or images: use one of them")
        parts = (then, latents, None if known is None else known.x0)
        rows = Rows.needed(count, len(condition), *(len(part) for part in parts if part is not None))
        guidance = rows.guidance(self.sampling, guidance_scale, rescale_phi, guidance_interval, guidance_parallel)
        asked = rows.asked(condition, guidance, numbers, then, switch_step, latents, known)
        at_a_time = self.sampling.batch_size if batch_size is None else batch_size
        if at_a_time < 1:
            raise LabError(f"batch_size={at_a_time}: use at least 1")
        size = (self.image_size if height is None else height, self.image_size if width is None else width)
        decoded = []
        chunks = torch.arange(rows.total).split(at_a_time)
        evaluations = len(chunks) * (len(self.times(num_inference_steps, sampler, spacing)) - start_step)
        with tqdm(total=evaluations, desc="sampling", leave=False, disable=None if progress else True) as bar:
            for chunk in chunks:
                states = self.states(
                    **asked.of(chunk),
                    seed=seed,
                    sampler=sampler,
                    num_inference_steps=num_inference_steps,
                    spacing=spacing,
                    eta=eta,
                    thresholding=thresholding,
                    size=None if latents is not None and height is width is None else size,
                    start_step=start_step,
                )
                for state in states:
                    bar.update()
                    if callback is not None:
                        callback(state)
                decoded.append(self.autoencoder.decode(state.x_next).clamp(-1, 1).cpu())
        samples = torch.cat(decoded)
        return samples if output == "tensor" else to_pil(samples)
