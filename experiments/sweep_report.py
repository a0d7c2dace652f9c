"""What both sweeps write: a video, a strip of stills, curves, a table, and a page where a slider scrubs the sweep."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from PIL import Image

import lab
from experiments.common import Report, check_sampling, plain, write_table
from experiments.expected import Expected, compared
from experiments.subjects import Score, Subjects, ask, similarity_of, verdict_of
from experiments.sweeps import MEASURES, Swept, called_out, frames, measure, sweep, values_of
from lab import LabError
from lab.commands import command_line
from lab.config import check_types
from lab.device import Precision
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import Scrub, Section, grid, save_image, save_video
from lab.render.moving import MovingCurves
from lab.runs import check_run

logger = logging.getLogger(__name__)
TYPES: dict[str, Any] = {
    "precision": Precision,
    "classes": Sequence[str | int] | None,
    "prompts": Sequence[str] | None,
    "values": Sequence[float] | None,
    **dict.fromkeys(("count", "points", "num_inference_steps", "seed"), int),
    **dict.fromkeys(("first", "last", "fps"), float),
    "guidance_interval": Sequence[float],
    "guidance_parallel": float,
    "measures": Sequence[str],
    "batch_size": int | None,
    **dict.fromkeys(("sampler", "video"), str),
    **dict.fromkeys(("run", "spacing", "thresholding", "judge", "device", "out"), str | None),
}
STILLS = (-10, -5, -2, 0, 1, 2, 5, 10)  # values of the strip, as far as the sweep has them


@dataclass(frozen=True)
class Kind:
    """Which knob a sweep turns, and what it says."""

    name: str  # of the experiment
    knob: str
    other: str  # the knob of guidance that stays where it is
    label: str
    question: str
    text: str  # what to look for
    expected: Sequence[Expected] = ()  # what was seen elsewhere


def check_sweep(cfg: DictConfig, kind: Kind) -> None:
    """LabError for a run that is none, and for values, measures and videos that cannot be."""
    check_types(cfg, {**TYPES, kind.other: float})
    check_run(cfg.run)
    values_of(cfg)
    check_sampling(cfg)
    if not cfg.measures:
        raise LabError(f"measures=[]: name some of {', '.join(MEASURES)}")
    for name in cfg.measures:
        if name not in MEASURES:
            raise LabError(f"measures={name}: use some of {', '.join(MEASURES)}")
    if cfg.judge is not None and "accuracy" not in cfg.measures:
        raise LabError(f"judge={cfg.judge}: nothing asks it; add accuracy to measures")


def run_sweep(cfg: DictConfig, kind: Kind) -> tuple[Report, Swept]:
    """Sample, measure and write; a report that can be added to, and what was swept."""
    model = lab.load(cfg.run, cfg.device, precision=cfg.precision)
    times = model.times(cfg.num_inference_steps, cfg.sampler, cfg.spacing)  # refused before anything is computed
    levels = times / max(1, model.parameterization.schedule.timesteps - 1)
    low, high = cfg.guidance_interval
    if not bool(((levels >= low) & (levels <= high)).any()):
        raise LabError(f"guidance_interval=[{low:g}, {high:g}]: none of the {len(times)} evaluations lies in it")
    subjects = ask(model, cfg.classes, cfg.prompts)
    names, scores, about = measures_of(cfg, model, subjects)
    values, settings = values_of(cfg), settings_of(cfg, kind)
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / kind.name
    facts = {**model.facts_of(settings), **subjects.facts, "count": cfg.count, kind.knob: values}
    swept = sweep(model, subjects, kind.knob, values, cfg.count, settings, Parts(folder, facts))
    measured = measure(swept, names, scores)
    write_table(folder / f"{kind.name}.csv", {kind.knob: values, **measured})
    panels = {MEASURES[name]: numbers for name, numbers in measured.items()}
    pictures = frames(swept, subjects, kind.label, panels)
    path = folder / f"{kind.name}.{cfg.video}"
    size = save_video(pictures, path, facts, cfg.fps)
    stills = still_sheet(swept, subjects)
    save_image(stills, folder / "stills.png", facts)
    save_image(MovingCurves(values, panels, kind.label, (760, 170 * len(panels))).plain, folder / "curves.png", facts)
    labels = [f"{kind.label} {value:g}" for value in values]
    start = called_out(swept, [1])[0]
    scrub = Scrub(path, size, f"{kind.label}, the same noise in each row", labels, cfg.fps, start)
    heads = [kind.label, *(name.replace("_", " ") for name in measured)]
    rows = [dict(zip(heads, row, strict=True)) for row in zip(values, *measured.values(), strict=True)]
    told = [rows[number] for number in called_out(swept, STILLS)]
    sections = [
        Section("The sweep", kind.text, scrubs=[scrub], command=command_line(f"experiments.{kind.name}", cfg)),
        Section("Stills", images=[(folder / "stills.png", f"one noise for all; {kind.label} from left to right")]),
        Section("Measured", about, [(folder / "curves.png", "means over all pictures of a value")], table=told),
    ]
    agreement = compared(kind.expected, values, measured, MEASURES)
    if agreement:
        sections.append(Section("Beside what was seen elsewhere", table=agreement))  # type: ignore[arg-type]
    return Report(folder, kind.question, sections), swept


def settings_of(cfg: DictConfig, kind: Kind) -> dict[str, Any]:
    """What every sample of the sweep is made with."""
    keys = ("num_inference_steps", "sampler", "spacing", "thresholding", "guidance_interval", "guidance_parallel")
    return {key: plain(cfg[key]) for key in (*keys, "seed", "batch_size", kind.other)}


def measures_of(cfg: DictConfig, model: DiffusionModel, subjects: Subjects) -> tuple[list[str], dict[str, Score], str]:
    """The measures that can be taken here, what takes those that need a CLIP or a judge, and how good that one is.

    Raises LabError for a judge that is named and is of no use, and where nothing is left.
    """
    scores: dict[str, Score] = {}
    similarity = similarity_of(model, cfg.run, subjects) if "similarity" in cfg.measures else None
    if similarity is not None:
        scores["similarity"] = similarity
    verdict = verdict_of(model, subjects, cfg.judge) if "accuracy" in cfg.measures else None
    if verdict is not None:
        scores["accuracy"] = verdict.right
    elif "accuracy" in cfg.measures:
        why = (
            "no judge knows these classes; +experiment=judge trains one, to be named: judge=DIR"
            if subjects.classes
            else "prompts have none"
        )
        logger.warning("accuracy is left out: %s", why)
    bare = {"similarity", "accuracy"} - set(scores)  # nothing to measure by
    bare |= set() if model.autoencoder.bounded else {"clip_fraction"}  # nothing is clipped in latents
    bare |= {"diversity"} if cfg.count == 1 else set()  # one seed has no distances
    names = [name for name in cfg.measures if name not in bare]
    if not names:
        raise LabError(f"measures=[{', '.join(cfg.measures)}]: nothing of it can be measured here; add saturation")
    return names, scores, verdict.about if verdict is not None else ""


def still_sheet(swept: Swept, subjects: Subjects) -> Image.Image:
    """Seed 0 of each subject, a row each, at the values that are called out."""
    chosen = called_out(swept, STILLS)
    tiles = swept.images[chosen, :, 0].transpose(0, 1).flatten(0, 1)
    columns = [f"{swept.values[number]:g}" for number in chosen]
    return grid(tiles, columns=len(chosen), row_labels=subjects.names, column_labels=columns, cell=128)
