"""What sweeps save by being one batch, beside loops over their values; a part of experiments.benchmark."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from experiments.subjects import Subjects
from experiments.sweeps import sweep
from experiments.switching import join
from experiments.timing import Row, race
from lab import LabError
from lab.autoencoders import Identity
from lab.conditioning import ClassEmbedding
from lab.config import build
from lab.device import local_device
from lab.diffusion import Guidance, NoiseSchedule, Parameterization
from lab.model import DiffusionModel
from lab.parts import Parts

logger = logging.getLogger(__name__)
CLASSES, SCALES, STEPS = 4, 21, 16  # pictures a value, values of guidance, evaluations of a picture
CLOSE = {"fp32": 1e-4, "bf16": 0.05}  # the greatest difference of a pixel that the two ways may have


def sweep_rows(cfg: DictConfig, bf16: bool) -> list[Row]:
    """The sweep of guidance and the transfer of style, each against sampling value by value; same pictures."""
    conditioner = ClassEmbedding(class_names=[str(number) for number in range(CLASSES)])
    network = build(cfg.networks.door, condition_dim=conditioner.dim)
    for parameter in network.parameters():  # the last layers start at zero, and all pictures would be alike
        torch.nn.init.normal_(parameter, std=0.02)
    formulas = Parameterization(NoiseSchedule(), "x0", "v")
    device = local_device()
    model = DiffusionModel(network, conditioner, Identity(), formulas, cfg.data.image_size)
    model.precision = "bf16" if bf16 else "fp32"
    model = model.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return [cfg_row(model, cfg.rounds), style_row(model, cfg.rounds)]


def cfg_row(model: DiffusionModel, rounds: int) -> Row:
    """Every scale with four pictures, in batches of 64, against a call of `sample` a scale."""
    names = [str(number) for number in range(CLASSES)]
    subjects = Subjects(names, model.condition(classes=names), [[name] for name in names])
    scales = torch.linspace(-10, 10, SCALES).tolist()
    settings: dict[str, Any] = {"num_inference_steps": STEPS, "sampler": "ddim", "batch_size": 64}
    made: dict[str, Tensor] = {}

    def batched() -> None:
        with tempfile.TemporaryDirectory() as folder:
            found = sweep(model, subjects, "guidance_scale", scales, 1, settings, Parts(Path(folder), {}))
        made["ours"] = found.images.flatten(0, 2)

    def loop() -> None:
        asked: dict[str, Any] = {"classes": names, "numbers": [0] * CLASSES, "output": "tensor", **settings}
        one_by_one = [model.sample(guidance_scale=scale, progress=False, **asked) for scale in scales]
        made["theirs"] = torch.cat(one_by_one)  # type: ignore[arg-type]

    title = f"guidance swept over {SCALES} scales, {CLASSES} pictures each: pictures"
    row = race(title, batched, "a loop over the scales", loop, SCALES * CLASSES, rounds)
    check_same(made, CLOSE[model.precision] + 1 / 255)  # the sweep keeps bytes
    return row


def style_row(model: DiffusionModel, rounds: int) -> Row:
    """Every switch step of one picture, joining one way down, against a call of `sample` a step."""
    source, target = (model.condition(classes=[name]) for name in ("0", "1"))
    steps = range(STEPS + 1)
    settings: dict[str, Any] = {"num_inference_steps": STEPS, "sampler": "ddim"}
    made: dict[str, Tensor] = {}

    def shared() -> None:
        with torch.inference_mode():
            states = list(model.states(source, guidance=Guidance(3.0), **settings))
            levels = torch.cat([*(state.x_t for state in states), states[-1].x_next])
        made["ours"] = join(model, levels, steps, target, guidance=Guidance(3.0))

    def loop() -> None:
        asked: dict[str, Any] = {"condition": source, "then": target, "guidance_scale": 3.0, **settings}
        one_by_one = [model.sample(switch_step=k, output="tensor", progress=False, **asked) for k in steps]
        made["theirs"] = torch.cat(one_by_one)  # type: ignore[arg-type]

    title = f"style transferred at {STEPS + 1} steps: pictures"
    row = race(title, shared, "a loop over the steps", loop, STEPS + 1, rounds)
    check_same(made, CLOSE[model.precision])
    return row


def check_same(made: dict[str, Tensor], rounding: float) -> None:
    """LabError where the two ways made different pictures, beyond what is lost by rounding."""
    worst = float((made["ours"] - made["theirs"]).abs().max())
    if worst > rounding:
        raise LabError(f"both ways should make the same pictures, and differ by {worst:.1g}")
    logger.info("largest difference of a pixel %.1g", worst)
