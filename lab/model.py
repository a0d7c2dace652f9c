"""A diffusion model as people use it: network, conditioner, autoencoder and formulas behind one `sample`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from lab.autoencoders import Identity
from lab.conditioning import Condition, Conditioner
from lab.conditioning.base import Request
from lab.diffusion import (
    SAMPLERS,
    THRESHOLDINGS,
    WITH_ETA,
    Denoiser,
    Guidance,
    Parameterization,
    Prediction,
    SamplerState,
    evaluation_times,
)
from lab.diffusion.guidance import Knob, check_interval
from lab.diffusion.thresholding import clip_fraction
from lab.errors import LabError
from lab.networks import UNet
from lab.render import to_pil
from lab.sampling import SamplingDefaults
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

    def denoiser(self, inputs: Tensor, guidance: Guidance, thresholding: str = "static") -> Denoiser:
        """(x_t, t) -> Prediction under the condition that `inputs` (B, ...) describe.

        Both branches of guidance are one network call, and a step that needs one of them computes one. In pixel
        space predicted x0 is held in [-1, 1] as `thresholding` says and eps re-derived from it, so that it moves
        deterministic samplers consistently; latents have no range to be held in.
        """
        conditional, null = self.conditioner(inputs), self.conditioner.null(inputs)
        both = Condition(torch.cat([conditional.vector, null.vector]))
        formulas = self.parameterization
        last = max(1, formulas.schedule.timesteps - 1)

        def guided(x: Tensor, t: Tensor) -> Prediction:
            now = guidance.at(t / last)
            if self.conditioner.dim == 0 or not now.needs_unconditional:
                return formulas.predict(self._network(x, t, conditional), x, t)
            if not now.needs_conditional:
                return formulas.predict(self._network(x, t, null), x, t)
            c, u = self._network(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
            if now.projects:
                of_x0 = formulas.from_x0(now.mix(formulas.predict(c, x, t).x0, formulas.predict(u, x, t).x0), x, t)
                mixed = formulas.target(of_x0.x0, of_x0.eps, t)
            else:
                mixed = now.mix(c, u)
            return replace(formulas.predict(now.rescale(mixed, c), x, t), guidance=now.terms(c, u, mixed))

        @torch.no_grad()
        def denoise(x: Tensor, t: Tensor) -> Prediction:
            prediction = guided(x, t)
            if not self.autoencoder.bounded:
                return prediction
            held = formulas.from_x0(THRESHOLDINGS[thresholding](prediction.x0), x, t)
            return replace(held, guidance=prediction.guidance, clip_fraction=clip_fraction(prediction.x0))

        return denoise

    def _network(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        out: Tensor = self.network(x.contiguous(memory_format=torch.channels_last), t, condition)
        return out.float()

    def states(
        self,
        inputs: Tensor,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
        guidance: Guidance | None = None,
        sampler: str | None = None,
        num_inference_steps: int | None = None,
        size: tuple[int, int] | None = None,
        eta: float | None = None,
        spacing: str | None = None,
        thresholding: str | None = None,
    ) -> Iterator[SamplerState]:
        """Every state on the way from noise to latents, for condition inputs (B, ...).

        numbers: number of each sample, which with `seed` decides its noise; 0..B-1 by default.
        num_inference_steps: evaluations of the network, exactly, whatever the sampler; spacing: of their levels.
        Raises LabError for a sampler, eta, step count, spacing, thresholding or size that it cannot have.
        """
        name = sampler or self.sampling.sampler
        if name not in SAMPLERS:
            raise LabError(f"sampler={name}: use one of {', '.join(SAMPLERS)}")
        if eta is not None and not 0 <= eta <= 1:
            raise LabError(f"eta={eta}: use 0 to 1, the share of fresh noise")
        if eta is not None and name not in WITH_ETA:
            raise LabError(f"eta={eta}: {name} adds no noise; {', '.join(WITH_ETA)} do")
        schedule = self.parameterization.schedule
        steps = self.sampling.num_inference_steps if num_inference_steps is None else num_inference_steps
        timesteps = evaluation_times(name, schedule, steps, spacing or self.sampling.spacing)
        height, width = self._latent_size(size or (self.image_size, self.image_size))
        numbered = range(len(inputs)) if numbers is None else numbers
        shape = (self.autoencoder.latent_channels, height, width)
        inputs = inputs.to(self.device)
        x = noise(shape, seed, numbered).to(self.device)

        def step_noise(step: int) -> Tensor:
            return noise(shape, seed, numbered, stream=f"step {step}").to(self.device)

        self.eval()
        denoise = self.denoiser(inputs, guidance or self.sampling.guidance, self._thresholding(thresholding))
        options = {} if eta is None else {"eta": eta}
        return SAMPLERS[name](denoise, x, schedule, timesteps, step_noise, **options)

    def _thresholding(self, asked: str | None) -> str:
        if asked is not None and asked not in THRESHOLDINGS:
            raise LabError(f"thresholding={asked}: use one of {', '.join(THRESHOLDINGS)}")
        if asked not in (None, "none") and not self.autoencoder.bounded:
            raise LabError(f"thresholding={asked}: latents have no range to be held in; it is for pixels")
        return asked or self.sampling.thresholding

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
        callback: Callable[[SamplerState], None] | None = None,
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
        Returns PIL images, or with output="tensor" (B, 3, H, W) float32 in [-1, 1] on the CPU.
        Raises LabError when this kind of run cannot serve the request, or for sizes and steps it cannot have.
        """
        if count < 1:
            raise LabError(f"count={count}: use at least 1")
        if output not in ("pil", "tensor"):
            raise LabError(f"output={output}: use pil or tensor")
        asked = self.conditioner.inputs(Request(prompts, classes, images))
        inputs = asked.repeat_interleave(count, dim=0)
        defaults = self.sampling
        interval = defaults.guidance_interval if guidance_interval is None else guidance_interval
        check_interval("guidance_interval", interval)

        def each(name: str, values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
            rows = torch.as_tensor(values, dtype=dtype).flatten()
            if len(rows) not in (1, len(inputs)):
                raise LabError(f"{name} has {len(rows)} values for {len(inputs)} samples: give one, or one each")
            return rows.expand(len(inputs))

        scales = each("guidance_scale", defaults.guidance_scale if guidance_scale is None else guidance_scale)
        phis = each("rescale_phi", defaults.rescale_phi if rescale_phi is None else rescale_phi)
        kept = each("guidance_parallel", defaults.guidance_parallel if guidance_parallel is None else guidance_parallel)
        low, high = (each("guidance_interval", end) for end in interval)
        numbered = each("numbers", range(len(inputs)) if numbers is None else numbers, torch.int64)
        at_a_time = self.sampling.batch_size if batch_size is None else batch_size
        if at_a_time < 1:
            raise LabError(f"batch_size={at_a_time}: use at least 1")
        size = (self.image_size if height is None else height, self.image_size if width is None else width)
        decoded = []
        for chunk in torch.arange(len(inputs)).split(at_a_time):
            states = self.states(
                inputs[chunk],
                seed,
                numbered[chunk].tolist(),
                Guidance(scales[chunk], phis[chunk], (low[chunk], high[chunk]), kept[chunk]),
                sampler,
                num_inference_steps,
                size,
                eta,
                spacing,
                thresholding,
            )
            for state in states:
                if callback is not None:
                    callback(state)
            decoded.append(self.autoencoder.decode(state.x_next).clamp(-1, 1).cpu())
        samples = torch.cat(decoded)
        return samples if output == "tensor" else to_pil(samples)
