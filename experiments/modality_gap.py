"""Does it hear words as it sees pictures? python -m experiments.modality_gap runs='[results/clip_cond]'.

A CLIP's texts lie beside its pictures, and a network that was trained on pictures' vectors is asked with texts'. Three
cures: noise on the vectors in training, and when sampling texts moved by the difference of both means, or told by the
pictures nearest to them. Colours are asked for with flowers that have them and that do not, and all classes by their
names: of each run, with and without noise in training, in each way that it has.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

import lab
from experiments.common import SAMPLING_TYPES, Report, sampling_facts, sampling_of, to_csv
from lab import LabError
from lab.cli import entry_point
from lab.clip.captions import class_prompts, with_articles
from lab.clip.colours import COLOURS
from lab.commands import command_line
from lab.conditioning import ClipVector
from lab.conditioning.classes import class_index
from lab.config import check_types
from lab.evaluation.agreement import colours_in, share_of
from lab.evaluation.drawing import sampled
from lab.evaluators import judge_of
from lab.judging import Judge, recognised
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import Section, from_uint8, grid, save_image
from lab.render.provenance import write_whole
from lab.runs import check_run

logger = logging.getLogger(__name__)
CELL = 96  # px of a sample on a sheet
SPECIES = 6  # where none are named
TYPES: dict[str, Any] = {
    **{key: kind for key, kind in SAMPLING_TYPES.items() if key not in ("run", "fps", "video")},
    **dict.fromkeys(("runs", "colours"), Sequence[str] | None),
    "species": Sequence[str | int] | None,
    "class_count": int,
    "judge": str | None,
    "out": str,
}


@dataclass(frozen=True)
class Row:
    """What one run does with its texts where they are, moved, or told as pictures; None without a judge."""

    run: str
    noise_in_training: float
    shift_when_sampling: bool
    neighbours_when_sampling: int  # pictures that a text is told by, 0: it tells itself
    seed: int
    n: int  # samples of colours with species; of class names alone `of_classes`
    of_classes: int
    colours: float  # share of the samples with the colour that was asked for
    blue: float | None  # the same of blue alone, the colour that the article's run failed at; None: not asked for
    species: float | None  # share that the judge takes for the species that was asked for together with a colour
    classes_first: float | None  # of samples of class names: share that the judge takes for the class ...
    classes_five: float | None  # ... and that has it among the first five

    @property
    def cures(self) -> str:
        """None, or those that there are; told by the pictures nearest to its moved vector a text is shifted no more."""
        shifted = self.shift_when_sampling and not self.neighbours_when_sampling
        cures = {"noise": self.noise_in_training, "shift": shifted, "neighbours": self.neighbours_when_sampling}
        return " and ".join(name for name, there in cures.items() if there) or "none"


@dataclass(frozen=True)
class Way:
    """How texts are told: moved or not, and by how many pictures."""

    name: str
    shift: bool
    neighbours: int = 0


def ways_of(conditioner: ClipVector) -> list[Way]:
    """Where they are, moved, and by pictures, where the run remembers some."""
    ways = [Way("plain", False), Way("shifted", True)]
    if len(conditioner.pictures) and conditioner.neighbours:
        ways.append(Way("neighbours", True, conditioner.neighbours))
    return ways


def check(cfg: DictConfig) -> None:
    """LabError for runs that are none, and for colours and counts that cannot be."""
    check_types(cfg, TYPES)
    if not cfg.runs:
        raise LabError("runs=[...]: name CLIP runs, e.g. [results/clip_cond]")
    for run in cfg.runs:
        check_run(run)
    if not cfg.colours:
        raise LabError(f"colours=[]: name some of {', '.join(COLOURS)}")
    for colour in cfg.colours:
        if colour not in COLOURS:
            raise LabError(f"colours={colour}: use some of {', '.join(COLOURS)}")
    for key, least in (("count", 1), ("class_count", 0), ("batch_size", 1)):
        if cfg[key] is not None and cfg[key] < least:
            raise LabError(f"{key}={cfg[key]}: use at least {least}")


def clip_run(run: str, cfg: DictConfig) -> DiffusionModel:
    """A run that texts can be moved for; LabError for another."""
    model = lab.load(run, cfg.device, precision=cfg.precision)
    if not isinstance(model.conditioner, ClipVector):
        raise LabError(f"run={run}: it is not conditioned on CLIP's vectors; train one that is, +experiment=clip_cond")
    model.times(cfg.num_inference_steps, cfg.sampler, cfg.spacing)
    return model


def species_of(model: DiffusionModel, cfg: DictConfig) -> list[str]:
    """The classes that are named, else some of the run's; LabError where there are none."""
    names: Sequence[str] = model.conditioner.class_names  # type: ignore[assignment]
    if cfg.species is None:
        free = [name for name in names if not colours_in(name)]
        chosen = [free[number * len(free) // SPECIES] for number in range(SPECIES)] if len(free) >= SPECIES else free
    else:
        chosen = [names[class_index(one, names)] for one in cfg.species]
    if not chosen:
        raise LabError("species=[...]: name some of the run's classes, if it has any")
    for name in chosen:
        if colours_in(name):
            raise LabError(f"species={name}: it has a colour in its name, and would be asked for in others")
    return chosen


def ask(model: DiffusionModel, prompts: Sequence[str], count: int, settings: Mapping[str, Any], parts: Parts) -> Tensor:
    """(P, N, H, W, 3) uint8: `count` samples of each prompt, the noises of one those of all."""
    which = torch.arange(len(prompts)).repeat_interleave(count)
    numbers = list(range(count)) * len(prompts)
    return sampled(model, model.condition(prompts), which, numbers, settings, parts).unflatten(0, (len(prompts), count))


def measure(
    model: DiffusionModel, way: Way, cfg: DictConfig, species: list[str], judge: Judge | None, folder: Path
) -> tuple[Row, Tensor]:
    """A row, and the colours' samples (S, C, N, H, W, 3)."""
    conditioner = model.conditioner
    assert isinstance(conditioner, ClipVector)
    conditioner.modality_shift, conditioner.neighbours = way.shift, way.neighbours
    names, run = list(conditioner.class_names), str(model.provenance["run"])
    facts = {**sampling_facts(model, cfg), **asdict(way), "nearest": conditioner.nearest}
    settings = sampling_of(cfg)
    prompts = [with_articles(f"a {colour} {name}") for name in species for colour in cfg.colours]
    made = ask(model, prompts, cfg.count, settings, Parts(folder / "colours", {**facts, "prompts": prompts}))
    asked_for = list(cfg.colours) * len(species)
    shares = [share_of(colour, samples) for colour, samples in zip(asked_for, made, strict=True)]
    judged: dict[str, float | None] = {"species": None, "classes_first": None, "classes_five": None}
    if judge is not None:
        asked = torch.tensor([names.index(name) for name in species]).repeat_interleave(len(cfg.colours) * cfg.count)
        judged["species"] = float(recognised(judge.logits, from_uint8(made.flatten(0, 1)), asked)[0].float().mean())
    if judge is not None and cfg.class_count:
        plainly = [class_prompts(name)[0] for name in names]
        parts = Parts(folder / "classes", {**facts, "prompts": plainly})
        of_classes = from_uint8(ask(model, plainly, cfg.class_count, settings, parts).flatten(0, 1))
        hits = recognised(judge.logits, of_classes, torch.arange(len(names)).repeat_interleave(cfg.class_count))
        judged["classes_first"], judged["classes_five"] = (float(hit.float().mean()) for hit in hits)
    blue = [share for colour, share in zip(asked_for, shares, strict=True) if colour == "blue"]
    plain = len(names) * cfg.class_count if judge is not None else 0
    row = Row(
        run,
        conditioner.noise,
        way.shift,
        way.neighbours,
        cfg.seed,
        len(prompts) * cfg.count,
        plain,
        mean(shares),
        mean(blue) if blue else None,
        **judged,
    )
    return row, made.unflatten(0, (len(species), len(cfg.colours)))


def sheet(made: Tensor, species: Sequence[str], colours: Sequence[str], title: str) -> Image.Image:
    """Sample 0 of each, a row a species and a column a colour."""
    first = from_uint8(made[:, :, 0].flatten(0, 1))
    return grid(first, row_labels=species, column_labels=colours, columns=len(colours), title=title, cell=CELL)


def told(row: Row) -> str:
    """A sentence about a row."""
    text = f"{row.colours:.0%} of the samples have the colour that was asked for"
    text += f", {row.blue:.0%} of the blue ones" if row.blue is not None else ""
    if row.species is not None:
        text += f"; the judge takes {row.species:.0%} for the species"
    if row.classes_first is not None:
        text += f", and of those of class names alone {row.classes_first:.0%} for the class"
    return text + "."


def run(cfg: DictConfig) -> Report:
    """Sample and measure; a table and a sheet for each way of asking."""
    folder, rows, sections = Path(cfg.out), [], []
    models = [clip_run(run, cfg) for run in cfg.runs]
    species = [species_of(model, cfg) for model in models]  # refused before anything is computed
    judges = [judge_of(model.conditioner.class_names, cfg.judge) for model in models]  # type: ignore[arg-type]
    for number, (model, kinds, judge) in enumerate(zip(models, species, judges, strict=True)):
        if judge is None:
            logger.warning("%s: no judge knows its classes, and colours alone are measured", cfg.runs[number])
        else:
            judge.to(model.device)
        assert isinstance(model.conditioner, ClipVector)
        for way in ways_of(model.conditioner):
            own = folder / f"{number}_{way.name}"
            row, made = measure(model, way, cfg, kinds, judge, own)
            rows.append(row)
            logger.info("%s, cures: %s: %s", row.run, row.cures, told(row))
            title = f"{Path(row.run).name}, cures: {row.cures}"
            save_image(sheet(made, kinds, cfg.colours, title), own / "colours.png", asdict(row))
            sections.append(Section(title, told(row), images=[(own / "colours.png", "one noise for all")]))
    write_whole(folder / "modality_gap.csv", lambda staged: staged.write_text(to_csv(rows)))
    table = [{"cures": row.cures, **asdict(row)} for row in rows]
    text = " ".join(dict.fromkeys(judge.about for judge in judges if judge is not None))
    logger.info("%s", text)
    measured = Section("Measured", text, table=table, command=command_line("experiments.modality_gap", cfg))
    return Report(folder, "Does it hear words as it sees pictures?", [measured, *sections])


@entry_point("modality_gap", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
