"""Two ways between samples, drawn and told: frames, stills, table and sentences."""

from collections.abc import Mapping
from math import isnan
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image

from experiments.between import CONDITION, ENDS, MOVED, NOISE, Ways, pace
from experiments.subjects import Subjects
from lab.render import grid
from lab.render.moving import MovingCurves, beside

CELL, STILL = 192, 128  # px, of a picture in the video and in the strip
STILLS = 9  # points of the strip, as far as there are so many
SIMILARITY, CONFIDENCE = "similarity", "confidence"
CALLED = {SIMILARITY: "CLIP similarity to", CONFIDENCE: "judge's confidence in"}
LABEL = "part of the way"


def row_labels(subjects: Subjects | None, cfg: DictConfig) -> dict[str, str]:
    """What each way is called beside its pictures."""
    seeds = f"seed {cfg.seed}→{cfg.other_seed}"
    if subjects is None:
        return {NOISE: f"noise: {seeds}"}
    first, second = (brief(name, 40) for name in subjects.names)
    return {CONDITION: f"condition: {first} to {second}", NOISE: f"noise: {seeds}, {first}"}


def titles(subjects: Subjects | None) -> dict[str, str]:
    """What each measure is called above its curves, where the legend leaves room for so many letters."""
    named = {
        f"{score}_{end}": f"{called} {brief(name, 22)}"
        for score, called in CALLED.items()
        for end, name in zip(ENDS, subjects.names if subjects else (), strict=False)
    }
    return named | {MOVED: "distance from the frame before (RMS)"}


def brief(text: str, length: int) -> str:
    """The text, or its beginning where it is longer."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def panels(measured: Mapping[str, Mapping[str, list[float]]], subjects: Subjects | None) -> dict[str, Any]:
    """The curves of each measure, one a way, by the measure's title."""
    named = titles(subjects)
    return {named[name]: curves for name, curves in measured.items()}


def frames(ways: Ways, labels: Mapping[str, str], curves: Mapping[str, Any]) -> list[Image.Image]:
    """For each point the pictures, a row a way and a column a noise, beside the curves."""
    sheets = [
        grid(
            torch.cat([images[number] for images in ways.images.values()]),
            row_labels=[labels[way] for way in ways.images],
            title=f"{weight:.2f} of the way",
            cell=CELL,
        )
        for number, weight in enumerate(ways.weights)
    ]
    size = (520, max(sheets[0].height, 150 * len(curves)))
    moving = MovingCurves(ways.weights, curves, LABEL, size)
    return [beside(sheet, moving.at(number)) for number, sheet in enumerate(sheets)]


def called_out(ways: Ways) -> list[int]:
    """Numbers of the points of the strip, both ends among them, evenly spread."""
    return torch.linspace(0, len(ways.weights) - 1, min(STILLS, len(ways.weights))).round().int().tolist()


def still_sheet(ways: Ways, labels: Mapping[str, str]) -> Image.Image:
    """A row a way and noise, the called out points from left to right."""
    chosen = called_out(ways)
    rows = torch.cat([images[chosen].transpose(0, 1) for images in ways.images.values()])  # (rows, points, ...)
    count = len(rows) // len(ways.images)
    names = [labels[way] if number == 0 else "" for way in ways.images for number in range(count)]
    columns = [f"{ways.weights[number]:.2f}" for number in chosen]
    return grid(rows.flatten(0, 1), columns=len(chosen), row_labels=names, column_labels=columns, cell=STILL)


def table_of(ways: Ways, measured: Mapping[str, Mapping[str, list[float]]]) -> list[dict[str, float | None]]:
    """What is measured at the points of the strip; None where there is no point before."""
    columns = {f"{way}: {short(name)}": column for name, curves in measured.items() for way, column in curves.items()}
    rows: list[dict[str, float | None]] = []
    for number in called_out(ways):
        at = {name: column[number] for name, column in columns.items()}
        rows.append({LABEL: ways.weights[number], **{name: None if isnan(x) else x for name, x in at.items()}})
    return rows


def short(name: str) -> str:
    """What a measure is called above the page's table."""
    return "step" if name == MOVED else name.replace("_", " to " if name.startswith(SIMILARITY) else " in ")


def told(ways: Ways, distances: Mapping[str, list[float]]) -> str:
    """How evenly each way changes."""
    sentences = []
    for way, numbers in distances.items():
        found = pace(ways.weights, numbers)
        if found is not None:
            sentences.append(
                f"While the {way} moves, the middle half of all change lies between {found.quarter:.2f} and "
                f"{found.three_quarters:.2f} of the way, and the greatest step, at {found.fastest:.2f}, is "
                f"{found.ratio:.1f} times the mean."
            )
    return " ".join(sentences) + " An even way has its middle half between 0.25 and 0.75."
