"""What happens on the way? python -m experiments.denoising run=results/class_cond: noise comes, and noise goes.

The same flowers in both directions: forward, the samples with ever more noise, and what the network takes each of them
for; reverse, the way DDIM came to them from noise, and what it took each stage for.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

import lab
from experiments.common import Report, check_sampling, plain, write_table
from experiments.subjects import Subjects, ask
from experiments.switching import guidance_of
from lab import LabError
from lab.cli import entry_point
from lab.commands import command_line
from lab.config import check_types
from lab.device import Precision
from lab.diffusion import Guidance
from lab.editing import renoise
from lab.model import DiffusionModel
from lab.render import Scrub, Section, grid, save_image, save_video
from lab.render.moving import MovingCurves, alike, beside
from lab.runs import check_run

logger = logging.getLogger(__name__)
ROWS = {
    "forward": "the samples with noise",
    "guessed": "what the network takes them for",
    "reverse": "on the way from noise",
    "predicted": "what the network takes that for",
}
TYPES: dict[str, Any] = {
    "precision": Precision,
    "classes": Sequence[str | int] | None,
    "prompts": Sequence[str] | None,
    **dict.fromkeys(("count", "num_inference_steps", "stages", "seed"), int),
    "guidance_scale": float | None,
    "guidance_interval": Sequence[float] | None,
    "fps": float,
    "video": str,
    **dict.fromkeys(("run", "spacing", "device", "out"), str | None),
}


def check(cfg: DictConfig) -> None:
    """LabError for a run that is none, and for numbers and videos that cannot be."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    check_sampling(cfg)
    if cfg.stages < 2:
        raise LabError(f"stages={cfg.stages}: use at least 2")


@dataclass(frozen=True)
class Both:
    """Both directions at each of K levels, the noisiest first: pictures (K, B, 3, H, W), and errors of predictions."""

    t: list[int]  # the time step of each level
    pictures: dict[str, Tensor]  # as ROWS
    on_the_way: list[float]  # RMS distance of "predicted" from the samples
    from_samples: list[float]  # and of "guessed"


@torch.inference_mode()
def both_ways(model: DiffusionModel, subjects: Subjects, cfg: DictConfig) -> Both:
    """Sample, put noise on the samples again, and let the network guess them from it, without guidance."""
    settings: dict[str, Any] = {"num_inference_steps": cfg.num_inference_steps, "spacing": cfg.spacing}
    guidance = guidance_of(model, cfg)
    condition = subjects.condition.chosen(cfg.seed, range(len(subjects)))
    states = list(model.states(condition, seed=cfg.seed, sampler="ddim", guidance=guidance, **settings))
    latents, times = states[-1].x_next, [state.t for state in states]
    samples = model.autoencoder.decode(latents).clamp(-1, 1)
    # By other noise than they came from, or the network would have seen it all before.
    others = range(len(latents), 2 * len(latents))
    levels = renoise(model, samples, condition, start_step=0, seed=cfg.seed, numbers=others, **settings).x
    denoise = model.denoiser(condition, Guidance(1.0))
    guessed = [denoise(x, torch.full((len(x),), t, device=x.device)).x0 for x, t in zip(levels, times, strict=False)]
    rows = {
        "forward": list(levels[:-1]),
        "guessed": guessed,
        "reverse": [state.x_t for state in states],
        "predicted": [state.x0 for state in states],
    }
    pictures = {
        name: torch.stack([model.autoencoder.decode(x).clamp(-1, 1).cpu() for x in row]) for name, row in rows.items()
    }
    errors = {
        name: (pictures[name] - samples.cpu()).square().mean(dim=(1, 2, 3, 4)).sqrt().tolist()
        for name in ("predicted", "guessed")
    }
    return Both(times, pictures, errors["predicted"], errors["guessed"])


def frames(both: Both, subjects: Subjects) -> list[Image.Image]:
    """For each level all rows, a column a sample, beside the errors."""
    last = len(both.t)
    sheets = alike(
        [
            grid(
                torch.cat([both.pictures[name][k] for name in ROWS]),
                columns=len(subjects),
                row_labels=list(ROWS.values()),
                column_labels=subjects.names,
                title=f"time step {t}, evaluation {k + 1} of {last}",
                cell=128,
            )
            for k, t in enumerate(both.t)
        ]
    )
    height = sheets[0].height
    curves = MovingCurves(range(1, last + 1), panels(both), "evaluation, from noise to picture", (460, height))
    return [beside(sheet, curves.at(k)) for k, sheet in enumerate(sheets)]


def panels(both: Both) -> dict[str, dict[str, list[float]]]:
    """The curves that are drawn."""
    return {"error of the predicted picture (RMS)": {"on the way": both.on_the_way, "from samples": both.from_samples}}


def strip(both: Both, subjects: Subjects, stages: int) -> Image.Image:
    """Rows of the first sample: from picture to noise and what is taken for it, from noise to picture likewise."""
    chosen = [round(i * (len(both.t) - 1) / max(1, stages - 1)) for i in range(min(stages, len(both.t)))]
    # Forward goes from the picture to noise, so that both are read from left to right.
    order = {name: chosen[::-1] if name in ("forward", "guessed") else chosen for name in ROWS}
    tiles = torch.cat([both.pictures[name][order[name], 0] for name in ROWS])
    labels = [f"{text}, t={both.t[order[name][0]]}…{both.t[order[name][-1]]}" for name, text in ROWS.items()]
    return grid(tiles, columns=len(chosen), row_labels=labels, title=subjects.names[0], cell=96)


def run(cfg: DictConfig) -> Report:
    """Sample, and write a video, a strip, curves and a table."""
    model = lab.load(cfg.run, cfg.device, precision=cfg.precision)
    model.times(cfg.num_inference_steps, "ddim", cfg.spacing)  # refused before anything is computed
    subjects = ask(model, cfg.classes, cfg.prompts, count=6, guided=False).repeated(cfg.count)
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "denoising"
    keys = ("num_inference_steps", "guidance_scale", "guidance_interval", "spacing", "seed")
    asked = {key: plain(cfg[key]) for key in keys}
    facts = model.facts_of({**asked, "sampler": "ddim"}) | {"subjects": subjects.names}
    both = both_ways(model, subjects, cfg)
    path = folder / f"denoising.{cfg.video}"
    size = save_video(frames(both, subjects), path, facts, cfg.fps)
    save_image(strip(both, subjects, cfg.stages), folder / "strip.png", facts)
    steps = list(range(1, len(both.t) + 1))
    columns: dict[str, Sequence[float]] = {"evaluation": steps, "t": both.t}
    columns |= {"on_the_way": both.on_the_way, "from_samples": both.from_samples}
    write_table(folder / "denoising.csv", columns)
    curves = MovingCurves(steps, panels(both), "evaluation, from noise to picture", (760, 340)).plain
    save_image(curves, folder / "curves.png", facts)
    labels = [f"t = {t}" for t in both.t]
    scrub = Scrub(path, size, "both directions, level by level", labels, cfg.fps, len(labels) // 2)
    text = (
        f"{len(subjects)} samples. Above, noise on the finished picture and what the network makes of it in one "
        "evaluation; below, the way by which the picture came, from noise alone."
    )
    sections = [
        Section("Level by level", text, scrubs=[scrub], command=command_line("experiments.denoising", cfg)),
        Section("One flower", images=[(folder / "strip.png", "from left to right")]),
        Section("Errors", images=[(folder / "curves.png", "distance of the predicted picture from the sample")]),
    ]
    return Report(folder, "What happens on the way?", sections)


@entry_point("denoising", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
