"""Does a picture come back from its own noise? python -m experiments.inversion_error run=results/class_cond.

The run's own samples are inverted by DDIM and sampled again, under the same condition and without guidance. With one
evaluation a level the error is that of a first-order method; iterating towards the fixed point lowers it.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

import lab
from experiments.common import log_log, to_csv
from experiments.subjects import ask
from lab.cli import entry_point
from lab.commands import command_line
from lab.config import check_types
from lab.device import Precision
from lab.editing import invert
from lab.model import DiffusionModel
from lab.render import Section, grid, page, save_image
from lab.render.provenance import write_whole
from lab.runs import check_run

logger = logging.getLogger(__name__)
TYPES: dict[str, Any] = {
    "precision": Precision,
    **dict.fromkeys(("steps", "iterations"), Sequence[int]),
    "classes": Sequence[str | int] | None,
    "prompts": Sequence[str] | None,
    **dict.fromkeys(("run", "spacing", "device", "out"), str | None),
    "seed": int,
}


@dataclass(frozen=True)
class Row:
    """One way there and back, over all pictures."""

    iterations: int  # of the fixed point, evaluations a level
    steps: int
    error: float  # root mean square, pixels in [-1, 1]
    psnr: float  # dB, mean over pictures


def check(cfg: DictConfig) -> None:
    """LabError for a run that is none, and for numbers that cannot be."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    for key in ("steps", "iterations"):
        if not cfg[key] or min(cfg[key]) < 1:
            raise lab.LabError(f"{key}={list(cfg[key])}: name some, each at least 1")


def measure(model: DiffusionModel, images: Tensor, condition: Any, cfg: DictConfig) -> tuple[list[Row], list[Tensor]]:
    """A row for each number of iterations and steps, and what came back of the first picture."""
    rows, back = [], []
    for iterations in cfg.iterations:
        for steps in cfg.steps:
            settings = {"num_inference_steps": steps, "spacing": cfg.spacing, "fixed_point_iterations": iterations}
            found = invert(model, images, condition, **settings)
            error = float((found.reconstruction - images).square().mean().sqrt())
            rows.append(Row(iterations, steps, error, float(found.psnr.mean())))
            back.append(found.reconstruction[:1])
            logger.info("%d iterations, %d steps: error %.4f, %.1f dB", *asdict(rows[-1]).values())
    return rows, back


@entry_point("inversion_error", check)
def main(cfg: DictConfig) -> None:
    """Measure, and write a table, a plot, a grid and a page."""
    model = lab.load(cfg.run, cfg.device, precision=cfg.precision)
    for steps in cfg.steps:
        model.times(steps, "ddim", cfg.spacing)  # refused before anything is computed
    subjects = ask(model, cfg.classes, cfg.prompts, count=8, guided=False)
    condition = subjects.condition.chosen(cfg.seed, range(len(subjects)))
    asked: dict[str, Any] = {"sampler": "dpmpp_2m", "num_inference_steps": 50, "seed": cfg.seed}
    images = model.sample(condition=condition, **asked, output="tensor")
    assert isinstance(images, Tensor)
    rows, back = measure(model, images, condition, cfg)
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "inversion_error"
    tried = {"steps": list(cfg.steps), "iterations": list(cfg.iterations), "spacing": cfg.spacing}
    facts = {**model.provenance, "images": {**model.facts_of(asked), **subjects.facts}, **tried}
    names = {count: f"{count} iteration{'s' * (count > 1)}" for count in cfg.iterations}
    lines = {name: [(r.steps, r.error) for r in rows if r.iterations == count] for count, name in names.items()}
    labels = ("Inverted and sampled again", "levels", "error (RMS, pixels in ±1)")
    save_image(log_log(lines, *labels), folder / "errors.png", facts)
    columns = [str(steps) for steps in cfg.steps]
    sheet = grid(torch.cat(back), row_labels=list(names.values()), column_labels=columns, cell=96)
    save_image(sheet, folder / "grid.png", facts)
    write_whole(folder / "errors.csv", lambda staged: staged.write_text(to_csv(rows)))
    sections = [
        Section(
            "There and back",
            f"{len(images)} of the run's own samples, inverted by DDIM and sampled again without guidance.",
            images=[(folder / "errors.png", "error of the picture that comes back")],
            table=[asdict(row) for row in rows],
            command=command_line("experiments.inversion_error", cfg),
        ),
        Section(
            "One picture",
            "Levels from left to right.",
            images=[(grid(images[:1], cell=96), "the picture"), (folder / "grid.png", "what came back")],
        ),
    ]
    page(folder / "index.html", "Does a picture come back from its own noise?", sections)
    logger.info("open %s", folder / "index.html")


if __name__ == "__main__":
    main()
