"""What is decided when? python -m experiments.style_transfer run=results/class_cond changes the condition on the way.

One condition until evaluation k, another from there on, for k from 0 (the other one alone) to the number of steps (the
first alone). Early evaluations decide composition, late ones colour and texture. The way begins with noise ("switch"),
or with a picture: its DDIM inversion, or the picture with noise, at the level of evaluation k (strength 1 - k / steps).
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

import lab
from experiments.common import Report, check_sampling, plain, write_table
from experiments.subjects import similarity_of
from experiments.switching import Pairs, pairs_of, transfer
from lab import LabError
from lab.cli import entry_point
from lab.commands import command_line
from lab.config import check_types
from lab.device import Precision
from lab.editing import pictures
from lab.evaluation.agreement import Similarity
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import Scrub, Section, grid, save_image, save_video
from lab.render.moving import MovingCurves, alike, beside
from lab.runs import check_run

logger = logging.getLogger(__name__)
WAYS = {
    "switch": "switched on the way",
    "inversion": "from the inverted picture",
    "renoise": "from the picture with noise",
}
APART = "distance from the source (RMS)"
CALLED_OUT = (10 / 256, 128 / 256, 240 / 256)  # of the way, as in the article
SETTINGS = (
    *("images", "ways", "num_inference_steps", "guidance_scale", "guidance_interval", "fixed_point_iterations"),
    *("spacing", "seed", "batch_size"),
)
TYPES: dict[str, Any] = {
    "precision": Precision,
    **dict.fromkeys(("classes", "then_classes"), Sequence[str | int] | None),
    **dict.fromkeys(("prompts", "then_prompts", "images"), Sequence[str] | None),
    "ways": Sequence[str],
    **dict.fromkeys(("steps", "called_out"), Sequence[int] | None),
    **dict.fromkeys(("num_inference_steps", "points", "fixed_point_iterations", "seed"), int),
    "guidance_scale": float | None,
    "guidance_interval": Sequence[float] | None,
    "batch_size": int | None,
    "fps": float,
    "video": str,
    **dict.fromkeys(("run", "spacing", "device", "out"), str | None),
}


def check(cfg: DictConfig) -> None:
    """LabError for a run that is none, and for steps, ways and videos that cannot be."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    check_sampling(cfg)
    for key in ("points", "fixed_point_iterations"):
        if cfg[key] < 1:
            raise LabError(f"{key}={cfg[key]}: use at least 1")
    for key in ("steps", "called_out"):
        for step in cfg[key] if cfg[key] is not None else ():
            if not 0 <= step <= cfg.num_inference_steps:
                raise LabError(f"{key}={step}: use 0 to num_inference_steps={cfg.num_inference_steps}")
    if cfg.steps is not None and not cfg.steps:
        raise LabError("steps=[]: name at least one")
    for way in cfg.ways:
        if way not in WAYS:
            raise LabError(f"ways={way}: use some of {', '.join(WAYS)}")
    if cfg.images is not None and not set(cfg.ways) - {"switch"}:
        raise LabError(
            f"images={list(cfg.images)}: only inversion and renoise begin with them; add one of these to ways"
        )
    if not cfg.ways:
        raise LabError(f"ways=[]: name some of {', '.join(WAYS)}")


def switch_steps(cfg: DictConfig) -> tuple[list[int], list[int]]:
    """The steps k of the video in order, to the last, and those that are called out, which are among them."""
    last = cfg.num_inference_steps
    called = cfg.called_out if cfg.called_out is not None else [round(share * last) for share in CALLED_OUT]
    if cfg.steps is not None:
        steps = set(cfg.steps)
    else:
        steps = {round(last * i / max(1, cfg.points - 1)) for i in range(cfg.points)}
    return sorted(steps | set(called) | {last}), sorted(set(called))


Curves = dict[str, dict[str, list[float]]]  # by title, by way, a number a step


def measure(made: Tensor, ways: Sequence[str], towards: Mapping[str, Similarity]) -> Curves:
    """Distance from the picture of the first condition alone, and similarity to either condition; means over pairs.

    made (K, W, B, 3, H, W), the last step being that of the first condition alone.
    """
    apart = (made - made[-1:]).square().mean(dim=(3, 4, 5)).sqrt().mean(dim=2)  # (K, W)
    found = {APART: apart}
    for title, similarity in towards.items():
        which = torch.arange(made.shape[2]).repeat(made.shape[0] * made.shape[1])
        found[title] = similarity(made.flatten(0, 2), which).view(made.shape[:3]).mean(dim=2)
    return {
        title: {way: numbers[:, place].tolist() for place, way in enumerate(ways)} for title, numbers in found.items()
    }


def towards_of(model: DiffusionModel, run: str, pairs: Pairs) -> dict[str, Similarity]:
    """What measures closeness to both conditions, where a CLIP knows the run's data."""
    first = similarity_of(model, run, pairs.source)
    if first is None:
        return {}
    second = Similarity(first.clip, pairs.target.phrases)
    return {"CLIP similarity to the first": first, "CLIP similarity to the second": second}


def frames(made: Tensor, cfg: DictConfig, pairs: Pairs, steps: Sequence[int], curves: Curves) -> list[Image.Image]:
    """For each k the pictures, a row a way and a column a pair, beside the curves."""
    last = cfg.num_inference_steps
    sheets = alike(
        [
            grid(
                images.flatten(0, 1),
                columns=len(pairs.names),
                column_labels=pairs.names,
                row_labels=[WAYS[way] for way in cfg.ways],
                title=f"second condition from step {step} of {last} on, strength {1 - step / last:.2f}",
            )
            for step, images in zip(steps, made, strict=True)
        ]
    )
    height = max(sheets[0].height, 150 * len(curves))
    moving = MovingCurves(steps, curves, "k, the evaluation at which the condition changes", (520, height))
    return [beside(sheet, moving.at(number)) for number, sheet in enumerate(sheets)]


def half_way(steps: Sequence[int], distances: Sequence[float]) -> int:
    """The first step at which no more than half of the distance at the first one is left."""
    return next(step for step, distance in zip(steps, distances, strict=True) if distance <= distances[0] / 2)


def still_sheet(
    made: Tensor, cfg: DictConfig, pairs: Pairs, steps: Sequence[int], called: Sequence[int]
) -> Image.Image:
    """A row for each pair and way, at the steps that are called out between the two conditions alone."""
    chosen = [steps.index(step) for step in sorted({steps[0], *called, steps[-1]})]
    tiles = made[chosen].permute(2, 1, 0, 3, 4, 5).flatten(0, 2)
    rows = [f"{name}, {WAYS[way]}" for name in pairs.names for way in cfg.ways]
    columns = [f"k = {steps[number]}" for number in chosen]
    return grid(tiles, columns=len(chosen), row_labels=rows, column_labels=columns)


def run(cfg: DictConfig) -> Report:
    """Sample, measure, and write a video, stills and a table."""
    model = lab.load(cfg.run, cfg.device, precision=cfg.precision)
    model.times(cfg.num_inference_steps, "ddim", cfg.spacing)  # refused before anything is computed
    pairs, (steps, called) = pairs_of(model, cfg), switch_steps(cfg)
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "style_transfer"
    asked = {key: plain(cfg[key]) for key in SETTINGS}
    given = pictures(model, list(cfg.images)) if cfg.images is not None else None
    facts = {**model.facts_of({**asked, "sampler": "ddim"}), **pairs.facts, "steps": steps}
    if given is not None:  # a file may have changed, and its name not
        facts["images_sha256"] = hashlib.sha256(given.numpy().tobytes()).hexdigest()
    made = transfer(model, cfg, pairs, steps, given, Parts(folder, facts))
    curves = measure(made, cfg.ways, towards_of(model, cfg.run, pairs))
    columns = {f"{title}, {way}": numbers for title, ways in curves.items() for way, numbers in ways.items()}
    write_table(folder / "style_transfer.csv", {"step": steps, **columns})
    path = folder / f"style_transfer.{cfg.video}"
    size = save_video(frames(made, cfg, pairs, steps, curves), path, facts, cfg.fps)
    halves = {way: half_way(steps, distances) for way, distances in curves[APART].items()} if steps[0] == 0 else {}
    stills = sorted({*called, *list(halves.values())[:1]})
    save_image(still_sheet(made, cfg, pairs, steps, stills), folder / "stills.png", facts)
    labels = [f"k = {step}" for step in steps]
    scrub = Scrub(path, size, "the second condition from k on", labels, cfg.fps, len(steps) // 2)
    text = (
        "Until evaluation k the network is told the first condition, from there on the second. Small k leaves little "
        "of the first but its composition and some of its colours, large k changes little; the article shows k = 10, "
        "128 and 240 of 256."
    )
    if halves:
        told_of = ", ".join(f"{step} ({WAYS[way]})" for way, step in halves.items())
        text += f" Half of the distance from the source is gone at k = {told_of}."
    told = [{"k": step, **{name: column[steps.index(step)] for name, column in columns.items()}} for step in stills]
    command = command_line("experiments.style_transfer", cfg)
    sections = [
        Section("From one to the other", text, scrubs=[scrub], command=command),
        Section("Stills", images=[(folder / "stills.png", "k from left to right")], table=told),
    ]
    return Report(folder, "What is decided when?", sections)


@entry_point("style_transfer", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
