"""The training log as a picture, and the style that every figure of the lab shares."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from PIL import Image

from lab.errors import LabError
from lab.render.provenance import save_image

# Okabe and Ito (2008), "Color universal design": distinct under every common colour blindness.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1a1a1a")

Floats = NDArray[np.float64]


def style() -> dict[str, Any]:
    """Matplotlib settings of every figure, for `with matplotlib.style.context(style()): ...`."""
    return {
        "axes.edgecolor": "#8a8a8a",
        "axes.grid": True,
        "axes.labelcolor": "#1a1a1a",
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "figure.constrained_layout.use": True,
        "figure.dpi": 160,
        "figure.figsize": (6.4, 3.6),
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "xtick.color": "#454545",
        "ytick.color": "#454545",
    }


def loss_curve(csv_path: str | Path, out_path: str | Path) -> None:
    """Draw a training log as PNG: columns step and loss, and held_out_loss, seen_loss and images_per_second if any.

    The raw loss is faint, its running mean strong. The loss axis is logarithmic where the mean falls by more
    than a factor of four. A step that was logged twice, after a resume, counts as it was logged last.

    Raises:
        LabError: the log is missing, empty or malformed, or the picture cannot be written.
    """
    csv_path = Path(csv_path)
    log = read_log(csv_path)
    with matplotlib.style.context(style(), after_reset=True):
        figure = Figure()
        axes = figure.subplots()
        _draw_loss(axes, log)
        _scale(axes, log)
        axes.set(xlabel="step", ylabel="loss")
        axes.set_title(_title(csv_path.resolve().parent.name, log), pad=22)  # the legend lies below it
        image = figure_image(figure)
    facts = {"log": csv_path.name, "rows": len(log["step"]), "last_step": log["step"][-1]}
    save_image(image, out_path, facts)


def figure_image(figure: Figure, dpi: float | None = None) -> Image.Image:
    """A matplotlib figure as an RGB picture, ready for `save_image` or `page`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi or "figure")
    return Image.open(buffer).convert("RGB")


def read_log(csv_path: Path) -> dict[str, Floats]:
    """Columns of a training log by name, each (rows,), ordered by step; NaN where a cell is empty.

    Raises:
        LabError: no such file, no column step or loss, no rows, or a cell that is no number.
    """
    try:
        lines = csv_path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise LabError(f"{csv_path}: no training log can be read here ({error.strerror})") from error
    names, *rows = list(csv.reader(lines)) or [[]]
    missing = [name for name in ("step", "loss") if name not in names]
    if missing:
        raise LabError(f"{csv_path}: no column {missing[0]}; a training log has the columns step and loss")
    if rows and len(rows[-1]) < len(names):
        rows.pop()  # the run was killed, or is writing, in the middle of its last line
    if not rows:
        raise LabError(f"{csv_path}: no step has been logged yet")
    by_step = {values[names.index("step")]: values for values in _numbers(csv_path, len(names), rows)}
    table = np.array([by_step[step] for step in sorted(by_step)])  # (rows, columns)
    return {name: table[:, column] for column, name in enumerate(names)}


def _numbers(csv_path: Path, width: int, rows: list[list[str]]) -> list[list[float]]:
    table = []
    for line, row in enumerate(rows, start=2):
        try:
            table.append([float(cell) if cell else math.nan for cell in row])
        except ValueError as error:
            raise LabError(f"{csv_path}, line {line}: {error}") from error
        if len(row) != width:
            raise LabError(f"{csv_path}, line {line}: {len(row)} cells where the header names {width}")
    return table


def running_mean(values: Floats, half: int) -> Floats:
    """Mean over up to `half` rows either side of each row, (rows,) -> (rows,), NaN and infinity left out.

    Near the start both sides shrink alike, so that the first steep fall is followed, not smeared, on a
    logarithmic step axis too.
    """
    finite = np.isfinite(values)
    totals = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    rows = np.arange(len(values))
    reach = np.minimum(half, rows // 5)
    first, last = rows - reach, np.minimum(rows + reach + 1, len(values))
    with np.errstate(invalid="ignore"):
        mean: Floats = (totals[last] - totals[first]) / (counts[last] - counts[first])
    return mean


def _draw_loss(axes: Axes, log: Mapping[str, Floats]) -> None:
    step, loss, half = log["step"], log["loss"], _half(log)
    if half:
        axes.plot(step, loss, color=COLOURS[0], alpha=0.22, linewidth=0.6)
    marker, label = ("", f"training, mean of {2 * half + 1} rows") if half else ("o", "training")
    axes.plot(step, running_mean(loss, half), color=COLOURS[0], marker=marker, markersize=3, label=label)
    for column, colour, name in (("held_out_loss", 1, "held out"), ("seen_loss", 2, "seen, measured alike")):
        losses = log.get(column, np.full_like(step, np.nan))
        there = np.isfinite(losses)
        if there.any():
            axes.plot(step[there], losses[there], color=COLOURS[colour], marker="o", markersize=3, label=name)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, borderpad=0)


def _scale(axes: Axes, log: Mapping[str, Floats]) -> None:
    """Plain numbers on both axes: 20k steps, a loss of 0.05."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    mean = running_mean(log["loss"], _half(log))
    mean = mean[np.isfinite(mean)]
    if mean.size and not (log["loss"] <= 0).any() and mean.max() > 4 * mean.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _half(log: Mapping[str, Floats]) -> int:
    """Rows on either side that the running mean takes in: a window of about a fortieth of the run."""
    return len(log["step"]) // 80


def _title(run: str, log: Mapping[str, Floats]) -> str:
    speed = log.get("images_per_second", np.array([]))
    return f"{run} · {np.nanmedian(speed):.0f} images/s" if np.isfinite(speed).any() else run
