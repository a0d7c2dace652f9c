"""The diffusion process of a trained network, a state at a time, in pixel or latent space."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lab.autoencoders import Autoencoder
from lab.conditioning import Condition, Conditioner
from lab.denoising import GuidedDenoiser, Known, Switch
from lab.device import Precision, computes_bf16, whole_fp32
from lab.diffusion import (
    SAMPLERS,
    THRESHOLDINGS,
    WITH_ETA,
    Guidance,
    Parameterization,
    SamplerState,
    evaluation_times,
)
from lab.errors import LabError
from lab.networks import UNet
from lab.sampling import SamplingDefaults, check_rows, check_start, switch_times
from lab.seeding import noise


class DiffusionProcess(nn.Module):
    """Network, conditioner, autoencoder and formulas: what takes noise to latents.

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
        """What is told of everything that is made: the weights' origin, the precision and how requests are told."""
        precision = "bf16" if computes_bf16(self.precision, self.device) else "fp32"
        return {**self.origin, "precision": precision, **self.conditioner.telling}

    def facts_of(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What samples depend on: the weights, and how they are made, by the run's defaults where nothing is asked."""
        given = {key: value for key, value in asked.items() if value is not None}
        facts = {**self.provenance, **vars(self.sampling), **given}
        return facts if self.autoencoder.bounded else {**facts, "thresholding": None}  # latents are not held in

    @contextmanager
    def in_precision(self, precision: Precision) -> Iterator[None]:
        """Another precision for what is computed while this is open; `states` computes as it is gone through."""
        before, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = before

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
        halved = computes_bf16(self.precision, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=halved), whole_fp32(not halved):
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
        condition, known = condition.chosen(seed, numbered), None if known is None else known.to(self.device)
        condition, switch = condition.to(self.device), None
        if then is not None:
            then = then.chosen(seed, numbered)
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
