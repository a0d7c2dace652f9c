"""Points of several classes over the density that they are meant to follow, a picture for each frame of a video."""

from typing import Any

import matplotlib.style
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from experiments.mixture import Mixture
from lab.render import style
from lab.render.curves import COLOURS

MARKERS = "os^DvPX"  # with the colours, so that a class is known by either
RADII = (2, 1)  # of the contours, in standard deviations around a lone component
ACROSS = 120  # places at which the density is taken, in each direction
DPI = 100


class Plane:
    """Axes and each class's contours, drawn once; `at` adds the points, and what is said of them.

    reach   how far the axes go from the origin, each way
    side    of the picture, px
    """

    def __init__(self, mixture: Mixture, reach: float, side: int) -> None:
        self.reach = reach
        with matplotlib.style.context(style(), after_reset=True):
            figure = Figure(figsize=(side / DPI, side / DPI), dpi=DPI)
            self._canvas, self._axes = FigureCanvasAgg(figure), figure.subplots()
            self._axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
            self._contours(mixture)
            look: dict[str, Any] = {"s": side / 50, "linewidths": 0, "alpha": 0.75}
            self._dots = [
                self._axes.scatter([], [], color=colour, marker=marker, label=f"class {number}", **look)
                for number, (_, colour, marker) in enumerate(zip(mixture.weights, COLOURS, MARKERS, strict=False), 1)
            ]
            self._title = self._axes.set_title(" ")  # holds its place
            self._note = self._axes.set_title("", loc="right", fontsize=9, fontweight="normal")
            self._axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=4, handletextpad=0)
            self._canvas.draw()
            self._empty = self._canvas.copy_from_bbox(figure.bbox)

    def _contours(self, mixture: Mixture) -> None:
        line = torch.linspace(-self.reach, self.reach, ACROSS, dtype=torch.float64)
        places = torch.cartesian_prod(line, line)  # x changes slowest
        for weights, colour in zip(mixture.weights, COLOURS, strict=False):
            density = mixture.log_density(places, weights).view(ACROSS, ACROSS).T
            peak = float(mixture.log_density(mixture.means, weights).max())
            levels = [peak - radius**2 / 2 for radius in RADII]
            seen = [level for level in levels if level < float(density.max())]  # others lie between the places
            if seen:
                look: dict[str, Any] = {"colors": colour, "linestyles": "solid", "linewidths": 0.9, "alpha": 0.6}
                self._axes.contour(line, line, density, levels=seen, **look)

    def at(self, points: Tensor, title: str = "") -> Image.Image:
        """Points (C, N, 2), and how many of them lie outside the axes, if any."""
        outside = float((points.abs().amax(dim=2) > self.reach).double().mean())
        self._title.set_text(title)
        self._note.set_text(f"{100 * outside:.2g} % outside" if outside else "")
        for dots, of_class in zip(self._dots, points, strict=True):
            dots.set_offsets(of_class)
        self._canvas.restore_region(self._empty)
        for artist in (*self._dots, self._title, self._note):
            self._axes.draw_artist(artist)
        return Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")
