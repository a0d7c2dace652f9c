"""What lies between two samples? python -m experiments.interpolation run=results/class_cond goes there on two ways.

Either the condition goes straight from one subject's to the other's while the noise stays, or the noise goes from one
seed's to another's along an arc (slerp) while the condition stays. Every point of both ways is a sample of one batch.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import lab
from experiments.between import MOVED, Ways, measure, walk
from experiments.between_report import (
    CONFIDENCE,
    LABEL,
    SIMILARITY,
    frames,
    panels,
    row_labels,
    still_sheet,
    table_of,
    told,
)
from experiments.common import SAMPLING_TYPES, Report, check_sampling, sampling_facts, sampling_of, write_table
from experiments.subjects import Score, Subjects, ask, similarity_of, verdict_of
from lab import LabError
from lab.cli import entry_point
from lab.commands import command_line
from lab.config import check_types
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import Scrub, Section, save_image, save_video
from lab.render.moving import MovingCurves
from lab.runs import check_run

logger = logging.getLogger(__name__)
TYPES: dict[str, Any] = {
    **SAMPLING_TYPES,
    "classes": Sequence[str | int] | None,
    "prompts": Sequence[str] | None,
    **dict.fromkeys(("points", "other_seed"), int),
    "judge": str | None,
}
BOTH = "One way changes what is asked for and keeps the noise, the other keeps what is asked for and changes the noise."
FROM_NOISE = "From one noise to another, on an arc: the run knows nothing that could be asked for."
EVENLY = "The distance from one frame to the next tells how evenly the picture changes."


def check(cfg: DictConfig) -> None:
    """LabError for a run that is none, and for ends, points and videos that cannot be."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    check_sampling(cfg)
    for key in ("classes", "prompts"):
        if cfg[key] is not None and len(cfg[key]) != 2:
            raise LabError(f"{key}=[{', '.join(map(str, cfg[key]))}]: name two, where the way begins and where it ends")
    if cfg.points < 2:
        raise LabError(f"points={cfg.points}: use at least 2")
    if cfg.seed == cfg.other_seed:
        raise LabError(f"other_seed={cfg.other_seed}: the noise goes there from seed={cfg.seed}; use another number")


def ends_of(model: DiffusionModel, cfg: DictConfig) -> Subjects | None:
    """Two classes or prompts; None for an unconditional run, whose noise alone can move."""
    if model.conditioner.dim == 0:
        model.condition(cfg.prompts, classes=cfg.classes)  # refuses both
        logger.warning("this run is unconditional: the noise alone moves")
        return None
    subjects = ask(model, cfg.classes, cfg.prompts, count=2)
    if len(set(subjects.names)) != 2:
        key = "classes" if cfg.prompts is None else "prompts"
        raise LabError(f"{key}=[{', '.join(subjects.names)}]: name two that differ, or there is no way between them")
    return subjects


def scores_of(model: DiffusionModel, subjects: Subjects | None, cfg: DictConfig) -> tuple[dict[str, Score], str]:
    """What compares pictures with both ends, where a CLIP and a judge know them, and how good that judge is.

    Raises LabError for a judge that is named and is of no use.
    """
    if subjects is None:
        if cfg.judge is not None:
            raise LabError(f"judge={cfg.judge}: it tells classes, and an unconditional run has none")
        return {}, ""
    scores: dict[str, Score] = {}
    similarity = similarity_of(model, cfg.run, subjects)
    if similarity is not None:
        scores[SIMILARITY] = similarity
    verdict = verdict_of(model, subjects, cfg.judge)
    if verdict is not None:
        scores[CONFIDENCE] = verdict.confidence
    return scores, verdict.about if verdict is not None else ""


def run(cfg: DictConfig) -> Report:
    """Sample both ways, and write a video, stills, curves and a table."""
    model = lab.load(cfg.run, cfg.device, precision=cfg.precision)
    model.times(cfg.num_inference_steps, cfg.sampler, cfg.spacing)  # refused before anything is computed
    subjects = ends_of(model, cfg)
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "interpolation"
    facts = {
        **sampling_facts(model, cfg),
        **(subjects.facts if subjects else {"subjects": []}),
        **{key: cfg[key] for key in ("other_seed", "points")},
    }
    ends, seeds = subjects.condition if subjects else model.condition(), (cfg.seed, cfg.other_seed)
    settings = sampling_of(cfg)
    scores, about = scores_of(model, subjects, cfg)
    ways = walk(model, ends, seeds, cfg.points, cfg.count, settings, Parts(folder, facts))
    measured = measure(ways, scores)
    return Report(
        folder, "What lies between two samples?", written(cfg, folder, facts, ways, measured, subjects, about)
    )


def written(
    cfg: DictConfig,
    folder: Path,
    facts: Mapping[str, Any],
    ways: Ways,
    measured: Mapping[str, Mapping[str, list[float]]],
    subjects: Subjects | None,
    about: str,
) -> list[Section]:
    """Write everything but the page, whose sections come back."""
    columns = {f"{way}_{name}": numbers for name, curves in measured.items() for way, numbers in curves.items()}
    write_table(folder / "interpolation.csv", {"weight": ways.weights, **columns})
    labels, curves = row_labels(subjects, cfg), panels(measured, subjects)
    path = folder / f"interpolation.{cfg.video}"
    size = save_video(frames(ways, labels, curves), path, facts, cfg.fps)
    save_image(still_sheet(ways, labels), folder / "stills.png", facts)
    drawn = MovingCurves(ways.weights, curves, LABEL, (760, 170 * len(curves))).plain
    save_image(drawn, folder / "curves.png", facts)
    slider = [f"{weight:.2f} of the way" for weight in ways.weights]
    scrub = Scrub(path, size, "rows: what moves; columns: noises", slider, cfg.fps, len(ways.weights) // 2)
    return [
        Section(
            "Both ways" if subjects else "From noise to noise",
            f"{BOTH if subjects else FROM_NOISE} {EVENLY}",
            scrubs=[scrub],
            command=command_line("experiments.interpolation", cfg),
        ),
        Section("Stills", images=[(folder / "stills.png", "rows: what moves, and noises; columns: parts of the way")]),
        Section(
            "Measured",
            f"{told(ways, measured[MOVED])} {about}".strip(),
            [(folder / "curves.png", "means over noises")],
            table=table_of(ways, measured),
        ),
    ]


@entry_point("interpolation", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
