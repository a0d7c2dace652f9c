"""How fast is it, beside others? python -m experiments.benchmark measures ratios, the contenders taking turns.

A step is forward, backward and fused AdamW at 64 px and 8.7 to 11.7 M parameters, in the same precision for all.
Peers are lucidrains' class-conditional UNet and diffusers' UNet2DModel, from the optional extra `bench`.
"""

import json
import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from experiments.decoding import decode_rows
from experiments.peers import peers
from experiments.sweep_speed import sweep_rows
from experiments.timing import Row, Step, faster_layout, machine, markdown, peak_memory, race
from lab.autoencoders import Identity
from lab.cli import entry_point
from lab.conditioning import ClassEmbedding
from lab.config import build, check_types
from lab.data import BatchStream, ImageSet, Petals
from lab.device import Precision, computes_bf16, keep_freed_memory, local_device
from lab.diffusion import NoiseSchedule, Parameterization
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.networks import UNet
from lab.render.provenance import write_whole
from lab.training import DiffusionTask, Trainer, TrainingSettings

logger = logging.getLogger(__name__)
CLASSES, TIMESTEPS = 102, 1000


class Conditioned(nn.Module):
    """The lab's UNet with a class embedding, called as the peers are."""

    def __init__(self, network: UNet, conditioner: ClassEmbedding) -> None:
        super().__init__()
        self.network, self.conditioner = network, conditioner

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """x (B, 3, H, W), t (B,), labels (B,) -> (B, 3, H, W)."""
        out: Tensor = self.network(x, t, self.conditioner(labels))
        return out


def training_step(
    module: nn.Module, batch_size: int, size: int, bf16: bool, layout: torch.memory_format, channels: int = 3
) -> Step:
    """One optimiser step of a denoiser on random data, ready to be repeated."""
    device = local_device()
    module = module.to(device).to(memory_format=layout).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    x = torch.randn(batch_size, channels, size, size, device=device).to(memory_format=layout)
    t, labels = (torch.randint(0, top, (batch_size,), device=device) for top in (TIMESTEPS, CLASSES))

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = (module(x, t, labels).float() - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def network_rows(cfg: DictConfig, which: str, bf16: bool) -> list[Row]:
    """Training steps of the lab's network `which` against each peer's."""
    rows = []
    for batch_size in cfg.batch_sizes:
        ours = training_step(make_network(cfg, which), batch_size, cfg.data.image_size, bf16, torch.channels_last)
        for name, make in peers(which).items():

            def peer(
                layout: torch.memory_format, make: Callable[[], nn.Module] = make, batch: int = batch_size
            ) -> Step:
                return training_step(make(), batch, cfg.data.image_size, bf16, layout)

            title = f"{which}, batch {batch_size}: images trained on"
            rows.append(race(title, ours, name, faster_layout(peer), batch_size, cfg.rounds))
    return rows


def latent_rows(cfg: DictConfig, bf16: bool) -> list[Row]:
    """Training in latents against training on the pixels, and encoding a picture once against training on it once."""
    device, batch_size = local_device(), max(cfg.batch_sizes)
    autoencoder = build(cfg.autoencoder).to(device).to(memory_format=torch.channels_last).eval()
    size, channels = cfg.data.image_size // autoencoder.factor, autoencoder.latent_channels
    options = (batch_size, size, bf16, torch.channels_last, channels)
    latent = training_step(make_network(cfg, "latent", in_channels=channels, sample_size=size), *options)
    whole = make_network(cfg, "pixels")
    pixels = training_step(whole, batch_size, cfg.data.image_size, bf16, torch.channels_last)
    images = torch.rand(batch_size, 3, cfg.data.image_size, cfg.data.image_size, device=device)

    @torch.no_grad()
    def encode() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            autoencoder.moments(images)
        if device.type == "cuda":
            torch.cuda.synchronize()

    title = f"latents, batch {batch_size}: images"
    return [
        race(f"{title} trained on", latent, "the lab's unet_pixels", pixels, batch_size, cfg.rounds),
        race(f"{title} encoded", encode, "trained on, in latents", latent, batch_size, cfg.rounds),
    ]


def make_network(cfg: DictConfig, which: str, **sizes: int) -> Conditioned:
    """The configured UNet, with classes."""
    conditioner = ClassEmbedding(class_names=[str(number) for number in range(CLASSES)])
    return Conditioned(build(cfg.networks[which], condition_dim=conditioner.dim, **sizes), conditioner)


class Unsaved(Trainer):
    """The loop alone: it goes on from call to call, and writes no checkpoint."""

    def save(self) -> None:
        """Not measured."""

    def _resume(self) -> None:
        """It never stopped."""


def make_trainer(cfg: DictConfig, bf16: bool, images: ImageSet, run_dir: Path, steps: int) -> Unsaved:
    """The lab's loop over what class_cond trains, at the larger batch; `steps` a call, with a row of the log."""
    batch_size = max(cfg.batch_sizes)
    settings = TrainingSettings(
        steps=steps, batch_size=batch_size, log_every=steps, preview_every=0, save_every=0,
        precision="bf16" if bf16 else "fp32",
    )  # fmt: skip
    return Unsaved(make_task(cfg, images, batch_size), run_dir, settings, seed=0)


def some_images(cfg: DictConfig, folder: Path) -> ImageSet:
    """Petals to train on."""
    return Petals(cfg.data.image_size, size=512, held_out_size=8, cache_dir=str(folder)).load("train")


def peak_of_training(cfg: DictConfig, bf16: bool) -> float:
    """GiB that a process holds at most which does nothing but train `door` at the larger batch."""
    with tempfile.TemporaryDirectory() as folder:
        make_trainer(cfg, bf16, some_images(cfg, Path(folder)), Path(folder) / "run", steps=3).run()
    return peak_memory()


def loop_rows(cfg: DictConfig, bf16: bool) -> list[Row]:
    """The lab's whole loop (data, clipping, EMA, log) against a bare one over the same task, which has one batch of
    pictures in memory, and draws noise and time steps as any must.
    """
    batch_size, steps = max(cfg.batch_sizes), 10  # steps a call, with a row of the log: twice as often as by default
    with tempfile.TemporaryDirectory() as folder:
        images = some_images(cfg, Path(folder))
        trainer = make_trainer(cfg, bf16, images, Path(folder) / "run", steps)
        bare = make_task(cfg, images, batch_size).to(trainer.accelerator.device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-4, fused=True)
        batch = {key: value.to(trainer.accelerator.device) for key, value in bare.inputs(0).items()}

        def lab_steps() -> None:
            trainer.settings = replace(trainer.settings, steps=trainer.step + steps)
            trainer.run()

        def bare_steps() -> None:
            for _ in range(steps):
                batch["eps"], batch["t"] = torch.randn_like(batch["eps"]), torch.randint_like(batch["t"], TIMESTEPS)
                with torch.autocast(trainer.accelerator.device.type, torch.bfloat16, enabled=bf16):
                    loss = bare(**batch)["loss"].mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            loss.item()

        title = f"door, batch {batch_size}: images through the lab's whole loop"
        return [race(title, lab_steps, "a bare loop over it", bare_steps, steps * batch_size, cfg.rounds)]


def make_task(cfg: DictConfig, images: ImageSet, batch_size: int) -> DiffusionTask:
    """What class_cond trains, on the given images."""
    conditioner = ClassEmbedding(class_names=images.class_names)
    network = build(cfg.networks.door, condition_dim=conditioner.dim)
    formulas = Parameterization(NoiseSchedule(), "x0", "v")
    model = DiffusionModel(network, conditioner, Identity(), formulas, images.image_size)
    return DiffusionTask(model, BatchStream(images, batch_size, seed=0), seed=0)


SECTIONS = ("memory", "door", "pixels", "latents", "loop", "sweeps", "decode")
TYPES: dict[str, Any] = {
    "only": Sequence[str],
    "batch_sizes": Sequence[int],
    "rounds": int,
    "precision": Precision,
    "out": str,
}


def check(cfg: DictConfig) -> None:
    """LabError for a section that is not measured, or a count that is none."""
    check_types(cfg, TYPES)
    for section in cfg.only:
        if section not in SECTIONS:
            raise LabError(f"only={section}: use some of {', '.join(SECTIONS)}")
    if cfg.rounds < 1 or not cfg.batch_sizes or any(size < 1 for size in cfg.batch_sizes):
        raise LabError(f"rounds={cfg.rounds} batch_sizes={list(cfg.batch_sizes)}: use at least 1")


@entry_point("benchmark", check)
def main(cfg: DictConfig) -> None:
    """Measure what is asked for; print a table and keep it as JSON."""
    device = local_device()
    bf16 = computes_bf16(cfg.precision, device)
    keep_freed_memory()  # for all contenders, as the lab's training does
    facts = machine(bf16)
    if "memory" in cfg.only:  # first: on Linux a new process starts with its parent's peak as its own
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            facts["peak_memory_gib"] = round(alone.submit(peak_of_training, cfg, bf16).result(), 2)
        logger.info("peak memory of training at batch %d: %.2f GiB", max(cfg.batch_sizes), facts["peak_memory_gib"])
    rows: list[Row] = []
    for which in ("door", "pixels"):
        rows += network_rows(cfg, which, bf16) if which in cfg.only else []
    rows += latent_rows(cfg, bf16) if "latents" in cfg.only else []
    rows += loop_rows(cfg, bf16) if "loop" in cfg.only else []
    rows += sweep_rows(cfg, bf16) if "sweeps" in cfg.only else []
    rows += decode_rows(cfg) if "decode" in cfg.only else []
    facts["rows"] = [vars(row) for row in rows]
    path = Path(cfg.out) / "benchmark.json"
    write_whole(path, lambda staged: staged.write_text(json.dumps(facts, indent=1)))
    logger.info("\n%s\n%s", markdown(rows), {key: value for key, value in facts.items() if key != "rows"})


if __name__ == "__main__":
    main()
