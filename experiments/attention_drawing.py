"""Plots and a video of what attention costs as pictures grow, and the exponents that were fitted to it."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from experiments.attentions import FUSED, KEPT, LINEAR, OURS, Row
from lab.render import figure_image, save_image, style
from lab.render.moving import alike, beside

FITTED = 3  # largest sizes that an exponent is fitted to
DPI = 100  # of a frame
LOOKS: dict[str, dict[str, Any]] = {
    KEPT: {"color": "#d55e00", "marker": "s"},
    FUSED: {"color": "#0072b2", "marker": "^"},
    LINEAR: {"color": "#009e73", "marker": "o"},
    OURS: {"color": "#1a1a1a", "marker": "o", "markersize": 11, "fillstyle": "none", "linestyle": ""},
}
PLOTS = {  # column, title and unit
    "time": ("milliseconds", "Time, forward and backward", "ms"),
    "memory": ("saved_mib", "Kept for the way back", "MiB"),
    "peak": ("peak_mib", "Held at most", "MiB"),
}


def series(rows: Sequence[Row], attention: str, column: str) -> list[tuple[float, float]]:
    """(places, what it costs) of one attention, in order; without what was not measured."""
    found = [(row.places, getattr(row, column)) for row in rows if row.attention == attention]
    return [(places, cost) for places, cost in found if cost is not None]


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(exponent, factor) of cost = factor * N^exponent, by least squares of logarithms over the largest sizes."""
    places, costs = zip(*points[-FITTED:], strict=True)
    slope, intercept = statistics.linear_regression([*map(math.log, places)], [*map(math.log, costs)])
    return slope, math.exp(intercept)


def plot(rows: Sequence[Row], column: str, title: str, label: str, at: int | None = None) -> Image.Image:
    """Costs over places, both axes logarithmic, with what was fitted; a line at one number of places, if asked for."""
    ticks = sorted({row.places for row in rows})
    with matplotlib.style.context(style(), after_reset=True):
        figure = Figure(figsize=(6.4, 4.4))
        axes = figure.subplots()
        for name, look in LOOKS.items():
            points = series(rows, name, column)
            if name != OURS:  # which goes over from one way to another
                exponent, factor = fit(points)
                fitted = [factor * places**exponent for places in ticks]
                axes.plot(ticks, fitted, color=look["color"], linestyle=":", linewidth=1)
            told = name if name == OURS else f"{name}: $N^{{{exponent:.2f}}}$"
            axes.plot(*zip(*points, strict=True), **{"markersize": 5, **look}, label=told)
        axes.set(xscale="log", yscale="log", xlabel="resolution, N places", ylabel=label)
        axes.set_xticks(ticks, [f"{math.isqrt(tick)}×{math.isqrt(tick)}\n{tick:,}" for tick in ticks])
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.legend(loc="upper left")
        axes.set_title(title)
        if at is not None:
            axes.axvline(at, color="#8a8a8a", linewidth=1)
        return figure_image(figure, dpi=None if at is None else DPI)


def frames(rows: Sequence[Row]) -> list[Image.Image]:
    """A frame a resolution: what attention keeps, drawn to scale, beside the curves."""
    sizes = sorted({row.resolution for row in rows})
    pictures = []
    for size in sizes:
        costs = {row.attention: row for row in rows if row.resolution == size}
        curves = [plot(rows, *PLOTS[column], at=size**2) for column in ("time", "memory")]
        pictures.append(beside(to_scale(costs, size, max(row.saved_mib for row in rows)), *curves))
    return alike(pictures)


def to_scale(costs: Mapping[str, Row], size: int, most: float) -> Image.Image:
    """Squares whose areas are the memory of each way at one resolution, beside the greatest of all."""
    with matplotlib.style.context(style(), after_reset=True):
        figure = Figure(figsize=(3.6, 4.4), layout="none")  # type: ignore[arg-type]
        axes = figure.add_axes((0.04, 0.04, 0.92, 0.88))  # the same in every frame, whatever the legend says
        for name, side in sides(costs, most).items():
            row = costs[name]
            label = f"{name}: {rounded(row.saved_mib)} MiB, {rounded(row.milliseconds)} ms"
            axes.add_patch(Rectangle((0, 0), side, side, color=LOOKS[name]["color"], alpha=0.6, label=label))
        axes.set(xlim=(0, 1), ylim=(0, 1.45), xticks=[], yticks=[], aspect="equal")
        for edge in axes.spines.values():
            edge.set_visible(False)
        axes.legend(loc="upper left")
        axes.set_title(f"{size}×{size}: {size**2:,} places")
        return figure_image(figure, dpi=DPI)


def sides(costs: Mapping[str, Row], most: float) -> dict[str, float]:
    """Of each way's square, as a share of that of the way that keeps `most` MiB."""
    return {name: math.sqrt(costs[name].saved_mib / most) for name in (KEPT, FUSED, LINEAR) if name in costs}


def rounded(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def plots(rows: Sequence[Row], folder: Path, facts: Mapping[str, Any]) -> list[Path]:
    """Writes a plot of time, of what is kept and, where it was told, of the peak."""
    there = [name for name in PLOTS if name != "peak" or rows[0].peak_mib is not None]
    drawn = {name: plot(rows, *PLOTS[name]) for name in there}
    for name, picture in drawn.items():
        save_image(picture, folder / f"{name}.png", facts)
    return [folder / f"{name}.png" for name in drawn]
