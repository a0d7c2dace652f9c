"""Curves on which a dot moves: beside each frame of a video, where on the way it is."""

from collections.abc import Mapping, Sequence

import matplotlib.style
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from lab.render.curves import COLOURS, figure_image, style

DOT = 9  # px, diameter
SHARPER = 4  # a dot is drawn so many times as large and reduced, which smooths its edge
DPI = 100


class MovingCurves:
    """Panels above each other that share their x axis, drawn once; `at(i)` adds a line and dots at the i-th value.

    x        the values on the way, one a frame
    panels   by label of its y axis, a number for each value; NaN leaves a gap, and no dot there
    x_label  of the common axis
    size     width and height, px
    """

    def __init__(
        self, x: Sequence[float], panels: Mapping[str, Sequence[float]], x_label: str, size: tuple[int, int]
    ) -> None:
        with matplotlib.style.context(style(), after_reset=True):
            figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
            columns = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
            for axes, (label, values), colour in zip(columns, panels.items(), COLOURS * len(panels), strict=False):
                axes.plot(x, values, color=colour)
                axes.set_title(label, fontsize=9, fontweight="normal", pad=3)
                axes.locator_params(axis="y", nbins=4)
                if len(x) > 1:
                    axes.set_xlim(min(x), max(x))
            columns[-1].set_xlabel(x_label)
            self.plain = figure_image(figure, dpi=DPI)
        height = self.plain.height
        self._columns = [axes.transData.transform((value, 0))[0] for axes in columns[:1] for value in x]
        self._dots = [
            [
                (*axes.transData.transform((value, y)), colour)
                for axes, values, colour in zip(columns, panels.values(), COLOURS * len(panels), strict=False)
                if (y := values[i]) == y  # not NaN
            ]
            for i, value in enumerate(x)
        ]
        self._dots = [[(left, height - up, colour) for left, up, colour in dots] for dots in self._dots]
        boxes = [axes.get_window_extent() for axes in columns]
        self._spans = [(height - box.y1, height - box.y0) for box in boxes]

    def at(self, index: int) -> Image.Image:
        """The curves with a line and a dot on each at value number `index`."""
        image = self.plain.copy()
        canvas = ImageDraw.Draw(image)
        for top, bottom in self._spans:
            canvas.line([(self._columns[index], top), (self._columns[index], bottom)], fill="#8a8a8a")
        for left, up, colour in self._dots[index]:
            dot = _dot(colour)
            image.paste(dot, (round(left - dot.width / 2), round(up - dot.height / 2)), dot)
        return image


def _dot(colour: str) -> Image.Image:
    """A disc with a white rim, smooth, on a transparent ground."""
    side = (DOT + 4) * SHARPER
    large = Image.new("RGBA", (side, side))
    canvas = ImageDraw.Draw(large)
    canvas.ellipse([0, 0, side - 1, side - 1], fill="#ffffff")
    canvas.ellipse([2 * SHARPER, 2 * SHARPER, side - 1 - 2 * SHARPER, side - 1 - 2 * SHARPER], fill=colour)
    return large.resize((DOT + 4, DOT + 4), Image.Resampling.LANCZOS)


def beside(*pictures: Image.Image, paper: str = "#ffffff") -> Image.Image:
    """Pictures from left to right on white, their tops on one line."""
    sheet = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), paper)
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    return sheet
