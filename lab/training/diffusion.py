"""Training a diffusion model: each step's noise, time steps and dropped conditions, and the weighted error."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lab.conditioning.base import Conditioner, Request
from lab.data import BatchStream
from lab.device import computes_bf16
from lab.model import DiffusionModel
from lab.render import grid, save_image
from lab.seeding import generator
from lab.training.task import StreamTask


class DiffusionTask(StreamTask):
    """Ho et al. 2020, eq. 14, for any parameterization and loss weight, with condition dropout.

    preview_request   what sample sheets show, `preview_count` samples of each
    compared          streams whose losses previews tell, by name, each with the conditioner that knows its set
    compared_count    pictures drawn from each
    """

    name = "diffusion"
    rated_by = "held_out_loss"  # before it learns by heart

    def __init__(
        self,
        model: DiffusionModel,
        stream: BatchStream,
        seed: int,
        preview_request: Request | None = None,
        preview_count: int = 1,
        compared: Mapping[str, tuple[BatchStream, Conditioner]] | None = None,
        compared_count: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.stream, self.seed = model, stream, seed
        self.preview_request, self.preview_count = preview_request or Request(), preview_count
        self.compared, self.compared_count = dict(compared or {}), compared_count  # a dict: they are not trained

    def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """This rank's images or moments, condition (B, ...), t (B,), drop (B,), eps and posterior (B, C, h, w).

        Noise, time steps and dropout are drawn for the global batch, so that ranks together see what one
        process would. Time steps are stratified over the batch, which steadies the loss.
        """
        return self._drawn(self.stream, self.model.conditioner, step, rank, world)

    def _drawn(
        self, stream: BatchStream, conditioner: Conditioner, step: int, rank: int = 0, world: int = 1
    ) -> dict[str, Tensor]:
        batch = stream.batch(step, rank, world)
        rows = slice(rank * len(batch.labels), (rank + 1) * len(batch.labels))
        total = len(batch.labels) * world
        draw = generator(self.seed, "diffusion", step)
        timesteps = self.model.parameterization.schedule.timesteps
        u = (torch.randperm(total, generator=draw) + torch.rand(total, generator=draw)) / total
        drop = torch.rand(total, generator=draw) < conditioner.dropout
        uniform = torch.rand(total, 2, generator=draw, dtype=torch.float64)
        device = self.model.device
        on_device = generator(self.seed, "noise", step, device=device)
        autoencoder = self.model.autoencoder
        factor = 1 if stream.of_moments else autoencoder.factor
        shape = (autoencoder.latent_channels, *(side // factor for side in batch.images.shape[2:]))
        draws = ["eps", "posterior"] if autoencoder.stochastic else ["eps"]
        noises = {name: torch.randn(total, *shape, generator=on_device, device=device)[rows] for name in draws}
        return {
            "images": batch.images,
            "condition": conditioner.training_inputs(batch, uniform[rows]),
            "t": (u * timesteps).long().clamp(max=timesteps - 1)[rows],
            "drop": drop[rows],
            **noises,
        }

    def forward(  # type: ignore[override]
        self, images: Tensor, condition: Tensor, t: Tensor, eps: Tensor, drop: Tensor, posterior: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{"loss": (B,)} weighted squared error of the output; {"x0_error": ()} of x0, unweighted."""
        model, formulas = self.model, self.model.parameterization
        moments = images if self.stream.of_moments else model.autoencoder.moments(images)
        x0 = model.autoencoder.latents(moments, posterior)
        x_t = formulas.schedule.add_noise(x0, eps, t).contiguous(memory_format=torch.channels_last)
        output = model.network(x_t, t, model.conditioner(condition, drop)).float()
        error = (output - formulas.target(x0, eps, t)).square().mean(dim=(1, 2, 3))
        with torch.no_grad():
            x0_error = (formulas.predict(output, x_t, t).x0 - x0).square().mean()
        return {"loss": error * formulas.loss_weight(t).to(error), "x0_error": x0_error}

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        """A captioned sheet of samples at the run's default sampler and guidance, same noise each time; and losses.

        {"sample_std", and the loss of each of `compared`}.
        """
        samples = sample_sheet(self.model, self.preview_request, self.preview_count, folder, step)
        losses = {name: self.loss_of(*of) for name, of in self.compared.items()}
        return {"sample_std": float(samples.std()), **losses}

    @torch.no_grad()
    def loss_of(self, stream: BatchStream, conditioner: Conditioner) -> float:
        """The mean loss of the first `compared_count` pictures that a stream draws, none without its condition.

        Noise and time steps are the same each time, and for every stream with batches of one size.
        """
        losses, device = [], self.model.device
        for step in range(math.ceil(self.compared_count / stream.batch_size)):
            inputs = {key: value.to(device) for key, value in self._drawn(stream, conditioner, step).items()}
            inputs["drop"] = torch.zeros_like(inputs["drop"])
            with torch.autocast(device.type, torch.bfloat16, enabled=computes_bf16(self.model.precision, device)):
                losses.append(self(**inputs)["loss"])
        return float(torch.cat(losses)[: self.compared_count].mean())


def sample_sheet(model: DiffusionModel, request: Request, count: int, folder: Path, step: int) -> Tensor:
    """`count` samples of each thing asked for, numbers 0 and on of seed 0, on a sheet `folder`/step_.......png.

    Returns the samples (B, 3, H, W).
    """
    samples = model.sample(
        request.prompts, classes=request.classes, images=request.images, count=count, output="tensor"
    )
    assert isinstance(samples, Tensor)
    captions: Sequence[str] | None = [caption for caption in request.labels for _ in range(count)]
    columns = max(1, round(len(samples) ** 0.5 * 1.25))
    low, high = model.sampling.guidance_interval
    scale = f"CFG {model.sampling.guidance_scale:g}" + (
        f" at noise {low:g} to {high:g}" if (low, high) != (0, 1) else ""
    )
    title = f"step {step}, {model.sampling.sampler} {model.sampling.num_inference_steps}, {scale}"
    sheet = grid(samples, captions=captions or None, columns=columns, title=title)
    save_image(sheet, folder / f"step_{step:07d}.png", {"step": step, "seed": 0, "title": title})
    return samples
