"""A diffusion model as people use it: network, conditioner, autoencoder and formulas behind one `sample`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from lab.autoencoders import Identity
from lab.conditioning import Condition, Conditioner
from lab.conditioning.base import Request
from lab.denoising import GuidedDenoiser, Known, Switch
from lab.diffusion import (
    SAMPLERS,
    THRESHOLDINGS,
    WITH_ETA,
    Guidance,
    Parameterization,
    SamplerState,
    evaluation_times,
)
from lab.diffusion.guidance import Knob, check_interval
from lab.errors import LabError
from lab.networks import UNet
from lab.render import to_pil
from lab.sampling import Rows, SamplingDefaults
from lab.seeding import noise


class DiffusionModel(nn.Module):
    """A conditional diffusion model in pixel or latent space.

    image_size   sides of a sample in pixels unless another is asked for
    provenance   where the weights come from (run, step, hash), for what is made with them
    """

    def __init__(
        self,
        network: UNet,
        conditioner: Conditioner,
        autoencoder: Identity,
        parameterization: Parameterization,
        image_size: int,
        sampling: SamplingDefaults | None = None,
    ) -> None:
        super().__init__()
        self.network, self.conditioner, self.autoencoder = network, conditioner, autoencoder
        self.parameterization = parameterization
        self.image_size = image_size
        self.sampling = sampling or SamplingDefaults()
        self.provenance: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(self.network.parameters()).device

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
        switch_step: Tensor | int = 0,
        latents: Tensor | None = None,
        start_step: int = 0,
        known: Known | None = None,
    ) -> Iterator[SamplerState]:
        """Every state on the way from noise to latents, under a condition of B rows.

        numbers: number of each sample, which with `seed` decides its noise; 0..B-1 by default.
        num_inference_steps: evaluations of the network, exactly, whatever the sampler; spacing: of their levels.
        then: the condition (B rows) from evaluation switch_step on, a number or (B,); 0 is from the start.
        latents: (B, C, h, w) to start from instead of noise, at the level of evaluation number start_step.
        known: pixels or latents that are given.
        Raises LabError for a sampler, eta, step count, spacing, thresholding, size or start that it cannot have.
        """
        name, times = sampler or self.sampling.sampler, self.times(num_inference_steps, sampler, spacing)
        if eta is not None and not 0 <= eta <= 1:
            raise LabError(f"eta={eta}: use 0 to 1, the share of fresh noise")
        if eta is not None and name not in WITH_ETA:
            raise LabError(f"eta={eta}: {name} adds no noise; {', '.join(WITH_ETA)} do")
        if not 0 <= start_step < len(times) or (start_step and latents is None):
            raise LabError(
                f"start_step={start_step}: use 0 to {len(times) - 1}, and above 0 give latents of that level"
            )
        numbered = range(len(condition)) if numbers is None else numbers
        if latents is None:
            shape = (self.autoencoder.latent_channels, *self._latent_size(size or (self.image_size, self.image_size)))
            latents = noise(shape, seed, numbered)
        x = latents.to(self.device)
        self.network.check_size(*x.shape[2:])

        def step_noise(step: int) -> Tensor:
            return noise(x.shape[1:], seed, numbered, stream=f"step {step + start_step}").to(self.device)

        self.eval()
        ends = torch.cat([times, torch.tensor([-1])])
        change = torch.as_tensor(switch_step).clamp(0, len(times)).expand(len(condition))
        switch = None if then is None else Switch(then, ends[change].to(self.device))
        denoise = self.denoiser(condition, guidance or self.sampling.guidance, thresholding, switch, known)
        options = {} if eta is None else {"eta": eta}
        sampling = SAMPLERS[name](denoise, x, self.parameterization.schedule, times[start_step:], step_noise, **options)
        return (replace(state, step=state.step + start_step) for state in sampling) if start_step else sampling

    def _latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        factor = self.autoencoder.factor
        if any(side % factor for side in size):
            raise LabError(f"size {size[0]}x{size[1]}: the autoencoder takes multiples of {factor}")
        height, width = size[0] // factor, size[1] // factor
        self.network.check_size(height, width)
        return height, width

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
        switch_step: Sequence[int] | Tensor | int = 0,
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
        samples, one a request, or one a sample.
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
        rows = Rows(len(condition), count)
        conditions = condition[rows.of("condition", len(condition)).to(condition.vector.device)]
        defaults = self.sampling
        interval = defaults.guidance_interval if guidance_interval is None else guidance_interval
        check_interval("guidance_interval", interval)
        scales = rows.each("guidance_scale", defaults.guidance_scale if guidance_scale is None else guidance_scale)
        phis = rows.each("rescale_phi", defaults.rescale_phi if rescale_phi is None else rescale_phi)
        kept = rows.each(
            "guidance_parallel", defaults.guidance_parallel if guidance_parallel is None else guidance_parallel
        )
        low, high = (rows.each("guidance_interval", end) for end in interval)
        numbered = rows.each("numbers", range(rows.total) if numbers is None else numbers, torch.int64)
        switch_steps = rows.each("switch_step", switch_step, torch.int64)
        thens = None if then is None else then[rows.of("then", len(then)).to(then.vector.device)]
        starts = None if latents is None else latents[rows.of("latents", len(latents))]
        givens = None if known is None else known[rows.of("known", len(known.x0))]
        at_a_time = self.sampling.batch_size if batch_size is None else batch_size
        if at_a_time < 1:
            raise LabError(f"batch_size={at_a_time}: use at least 1")
        size = (self.image_size if height is None else height, self.image_size if width is None else width)
        decoded = []
        chunks = torch.arange(rows.total).split(at_a_time)
        evaluations = len(chunks) * (len(self.times(num_inference_steps, sampler, spacing)) - start_step)
        bar = tqdm(total=evaluations, desc="sampling", leave=False, disable=None if progress else True)
        for chunk in chunks:
            states = self.states(
                conditions[chunk],
                seed=seed,
                numbers=numbered[chunk].tolist(),
                guidance=Guidance(scales[chunk], phis[chunk], (low[chunk], high[chunk]), kept[chunk]),
                sampler=sampler,
                num_inference_steps=num_inference_steps,
                spacing=spacing,
                eta=eta,
                thresholding=thresholding,
                size=size,
                then=None if thens is None else thens[chunk],
                switch_step=switch_steps[chunk],
                latents=None if starts is None else starts[chunk],
                start_step=start_step,
                known=None if givens is None else givens[chunk].to(self.device),
            )
            for state in states:
                bar.update()
                if callback is not None:
                    callback(state)
            decoded.append(self.autoencoder.decode(state.x_next).clamp(-1, 1).cpu())
        bar.close()
        samples = torch.cat(decoded)
        return samples if output == "tensor" else to_pil(samples)
