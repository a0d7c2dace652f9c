"""A diffusion model as people use it: network, conditioner, autoencoder and formulas behind one `sample`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from lab.conditioning import Condition
from lab.conditioning.base import Request
from lab.denoising import Known
from lab.diffusion import SamplerState
from lab.diffusion.guidance import Knob
from lab.errors import LabError
from lab.process import DiffusionProcess
from lab.render import to_pil
from lab.sampling import Rows, SamplingDefaults

__all__ = ["DiffusionModel", "SamplingDefaults"]


class DiffusionModel(DiffusionProcess):
    """A conditional diffusion model in pixel or latent space: asked by words, classes or pictures, it answers."""

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
        return self.conditioner.asked(Request(prompts, classes, images), self.device)

    @torch.no_grad()
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
