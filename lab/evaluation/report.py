"""What an evaluation shows: numbers beside those of real pictures, and what might be copied."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.style
import torch
from matplotlib.figure import Figure
from PIL import Image

from lab.data import ImageSet
from lab.errors import LabError
from lab.evaluation.memorisation import Audit
from lab.evaluation.worth import Worth
from lab.render import Section, figure_image, from_uint8, grid, style

RESULT = "evaluation.json"


def results(run: Path) -> dict[Path, dict[str, Any]]:
    """What `lab.evaluate` found of a run, by file; LabError for a file that is damaged."""
    found = {}
    for path in sorted(run.glob(f"evaluation/*/{RESULT}")):
        try:
            found[path] = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise LabError(f"{path}: damaged ({error}); evaluate again") from error
    return found


def pairs(pixels: torch.Tensor, train: ImageSet, audit: Audit, count: int) -> Image.Image:
    """The samples nearest to a training picture, each above it. It holds pictures of the data set."""
    chosen = audit.suspicious(count)
    samples, neighbours = from_uint8(pixels[chosen]), train.view(audit.neighbours[chosen])
    columns = min(8, len(chosen))
    rows = [part for pair in zip(samples.split(columns), neighbours.split(columns), strict=True) for part in pair]
    above = [f"{int(number)}: {float(audit.distances[number]):.2f}" for number in chosen]
    below = [f"#{int(number)}" for number in audit.neighbours[chosen]]
    texts = [text for part in range(0, len(above), columns) for text in
             [*above[part : part + columns], *below[part : part + columns]]]  # fmt: skip
    return grid(torch.cat(rows), captions=texts, columns=columns, title="samples, and below each its nearest", cell=64)


def nearest_table(audits: Mapping[str, Audit], train: ImageSet) -> str:
    """As CSV, of each sample and in each space: the nearest training picture, how far, and whether it may be a copy."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["space", "sample", "training_picture", "distance", "copy", "file"])
    for space, one in audits.items():
        columns = (one.neighbours.tolist(), one.distances.tolist(), one.copies.tolist())
        for number, (neighbour, distance, copy) in enumerate(zip(*columns, strict=True)):
            writer.writerow([space, number, neighbour, f"{distance:.5g}", int(copy), train.file(neighbour)])
    return lines.getvalue()


def table(found: Worth) -> list[dict[str, Any]]:
    """A row a measure: generated, real at the same n, held-out."""
    sides = {
        "generated": found.facts()["generated"],
        f"real, n = {found.n}": found.facts()["real"],
        f"held out, n = {found.held_out_n}": found.facts()["held_out"],
    }
    return [{"measure": name, **{side: of[name] for side, of in sides.items()}} for name in found.facts()["generated"]]


def about(found: Worth) -> str:
    """What must be known to read the numbers."""
    text = (
        f"{found.n} samples, as many real pictures of the same classes, and {found.held_out_n} held-out ones (of fewer "
    )
    text += (
        "FID is higher and coverage lower, whatever they are, and classes may be mixed otherwise), each against the "
    )
    text += f"same {found.reference} other training pictures. "
    text += f"Space: {found.space}; seed {found.seed}. "
    if found.judge:
        judge = found.judge
        text += f"The judge is right about {judge['top1']:.1%} of held-out pictures, and has the class among its first "
        text += f"five for {judge['top5']:.1%}. "
    if found.colour_n:
        text += (
            f"Colours are of {found.colour_n} samples of colour prompts, and of as many real pictures of either kind: "
        )
        text += "those that the CLIP finds first to the same prompts. "
    if found.cas_n:
        text += f"CAS is of classifiers that learned from {found.cas_n} samples, or from as many training pictures. "
    text += "A judge of the lab's own, and a CLIP of its own, have learned the training pictures and no held-out one. "
    text += "Copies among real pictures have another training picture so near."
    return text


def distances_plot(audits: Mapping[str, Audit]) -> Image.Image:
    """A panel a space: how far pictures of each kind are from the nearest (other) training picture."""
    with matplotlib.style.context(style(), after_reset=True):
        figure = Figure(figsize=(4.6 * len(audits), 3.2), layout="constrained")
        for number, (space, one) in enumerate(audits.items(), start=1):
            axes = figure.add_subplot(1, len(audits), number)
            for label, distances in (("generated", one.distances), ("held out", one.held_out), ("training", one.real)):
                axes.ecdf(distances.numpy(), label=label)
            axes.axvline(one.threshold, color="0.6", linewidth=1)
            axes.set(
                xlabel=f"RMS distance to the nearest training picture ({space.split()[0]})",
                ylabel="share of the pictures up to it",
            )
            axes.legend(loc="lower right")
    return figure_image(figure)


def sections(
    found: Worth, audits: Mapping[str, Audit], factors: Mapping[str, Mapping[str, float]], folder: Path, command: str
) -> list[Section]:
    """The page: numbers, and possible copies."""
    told = " and ".join(f"{int(one.copies.sum())} ({space.split()[0]})" for space, one in audits.items())
    by_chance = max(one.chance for one in audits.values())
    copies = (
        f"Of {found.n} samples {told} are nearer to a training picture than all but 1 % of held-out ones are (the "
        f"line); of as many further held-out ones {by_chance:.1%} would be, by chance. The nearest are shown, with "
        "their numbers; nearest.csv has all. The sheets hold pictures of the data."
    )
    sheet = [
        (folder / "distances.png", "distances to the nearest (other) training picture, and those of real pictures")
    ]
    sheet += [
        (folder / f"{name}.png", f"samples, and below each the nearest training picture ({space.split()[0]})")
        for name, space in zip(("copies", "pixel_copies"), audits, strict=True)
    ]
    numbers = [Section("Numbers", about(found), table=table(found), command=command)]
    if factors:
        text = "Shares of pictures that the judge takes for a class with the factor that was asked for."
        numbers.append(Section("Known factors", text, table=[{"factor": name, **row} for name, row in factors.items()]))
    return [*numbers, Section("Copies?", copies, images=sheet)]
