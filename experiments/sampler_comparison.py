"""Which sampler for how many steps? python -m experiments.sampler_comparison run=results/class_cond measures it.

Every deterministic sampler follows the same equation from the same noise, so that with steps enough all arrive at one
picture. How far each is from it after how many evaluations of the network is the price of its steps.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

import lab
from experiments.common import log_log, to_csv
from experiments.subjects import ask
from lab.cli import entry_point
from lab.commands import command_line
from lab.config import check_types
from lab.device import Precision
from lab.diffusion import SAMPLERS
from lab.model import DiffusionModel
from lab.render import Section, grid, page, save_image
from lab.render.provenance import write_whole
from lab.runs import check_run

logger = logging.getLogger(__name__)
STOCHASTIC = ("ddpm", "euler_ancestral")  # their noise makes another picture at each number of steps
CLOSE = 0.05  # root mean square over pixels in [-1, 1]: below it differences are hard to see
TYPES: dict[str, Any] = {
    "precision": Precision,
    **dict.fromkeys(("samplers",), Sequence[str]),
    "steps": Sequence[int],
    "classes": Sequence[str | int] | None,
    "prompts": Sequence[str] | None,
    **dict.fromkeys(("run", "spacing", "device", "out"), str | None),
    "guidance_scale": float | None,
    "seed": int,
}


@dataclass(frozen=True)
class Row:
    """One sampler after some evaluations, over all pictures."""

    sampler: str
    steps: int
    distance: float  # root mean square difference from the reference, pixels in [-1, 1]
    seconds_an_image: float


def check(cfg: DictConfig) -> None:
    """LabError for a run that is none, and for samplers that cannot be compared."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    for name in (*cfg.samplers, cfg.reference.sampler):
        if name not in SAMPLERS or name in STOCHASTIC:
            usable = ", ".join(sampler for sampler in SAMPLERS if sampler not in STOCHASTIC)
            raise lab.LabError(f"samplers={name}: use some of {usable}")
    if not cfg.samplers or not cfg.steps or min(cfg.steps) < 1:
        raise lab.LabError(f"samplers={list(cfg.samplers)} steps={list(cfg.steps)}: name some, steps at least 1")


def timed(model: DiffusionModel, **settings: Any) -> tuple[Tensor, float]:
    """Samples (B, 3, H, W), and seconds an image."""
    started = time.perf_counter()
    samples = model.sample(**settings, output="tensor")
    assert isinstance(samples, Tensor)
    return samples, (time.perf_counter() - started) / len(samples)


def compare(model: DiffusionModel, cfg: DictConfig, asked: dict[str, Any]) -> tuple[list[Row], list[Tensor]]:
    """All rows, and of each row the first picture; the last of these is the reference's."""
    truth, _ = timed(model, **asked, **OmegaConf.to_container(cfg.reference))  # type: ignore[arg-type]
    rows, pictures = [], []
    for name in cfg.samplers:
        for steps in cfg.steps:
            samples, seconds = timed(model, **asked, sampler=name, num_inference_steps=steps)
            rows.append(Row(name, steps, float((samples - truth).square().mean().sqrt()), seconds))
            pictures.append(samples[:1])
            logger.info("%s, %d: distance %.4f, %.3f s an image", *asdict(rows[-1]).values())
    return rows, [*pictures, truth[:1]]


def plot(rows: list[Row]) -> Image.Image:
    """Distance over evaluations."""
    lines = {
        name: [(row.steps, row.distance) for row in rows if row.sampler == name]
        for name in dict.fromkeys(row.sampler for row in rows)
    }
    labels = ("Distance from the reference picture", "evaluations of the network", "distance (RMS, pixels in ±1)")
    return log_log(lines, *labels, level=CLOSE)


def conclusion(rows: list[Row]) -> str:
    """Who comes close first, and after how many evaluations."""
    reached: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: row.steps):
        if row.distance < CLOSE:
            reached.setdefault(row.sampler, row.steps)
    if not reached:
        return f"No sampler came within {CLOSE:g} of the reference."
    told = ", ".join(f"{name} after {steps}" for name, steps in reached.items())
    return f"Within {CLOSE:g} of the reference, where differences are hard to see: {told} evaluations."


@entry_point("sampler_comparison", check)
def main(cfg: DictConfig) -> None:
    """Measure, and write a table, a plot, a grid and a page."""
    model = lab.load(cfg.run, cfg.device, precision=cfg.precision)
    asked: dict[str, Any] = {"seed": cfg.seed, "guidance_scale": cfg.guidance_scale, "spacing": cfg.spacing}
    for name in cfg.samplers:
        for steps in cfg.steps:
            model.times(steps, name, cfg.spacing)  # refused before anything is computed
    subjects = ask(model, cfg.classes, cfg.prompts, count=8, guided=False)
    rows, pictures = compare(model, cfg, {**asked, "condition": subjects.condition})
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "sampler_comparison"
    facts = {**model.facts_of(asked), **subjects.facts}
    facts |= {"sampler": list(cfg.samplers), "num_inference_steps": list(cfg.steps)}
    facts["reference"] = OmegaConf.to_container(cfg.reference)
    columns = [str(steps) for steps in cfg.steps]
    sheet = grid(torch.cat(pictures[:-1]), row_labels=list(cfg.samplers), column_labels=columns, cell=96)
    write_whole(folder / "distances.csv", lambda staged: staged.write_text(to_csv(rows)))
    save_image(sheet, folder / "grid.png", facts)
    save_image(plot(rows), folder / "distances.png", facts)
    sections = [
        Section(
            "Distance",
            f"{conclusion(rows)} The reference is {cfg.reference.sampler} with {cfg.reference.num_inference_steps}.",
            images=[(folder / "distances.png", "distance from the reference; below the dashed line it is hard to see")],
            table=[asdict(row) for row in rows],
            command=command_line("experiments.sampler_comparison", cfg),
        ),
        Section(
            "One picture",
            "One noise and one class: evaluations of the network from left to right.",
            images=[(folder / "grid.png", "each sampler's picture"), (grid(pictures[-1], cell=96), "the reference")],
        ),
    ]
    page(folder / "index.html", "Which sampler for how many steps?", sections)
    logger.info("%s\nopen %s", conclusion(rows), folder / "index.html")


if __name__ == "__main__":
    main()
