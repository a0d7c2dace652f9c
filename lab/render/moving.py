"""Curves on which a dot moves: beside each frame of a video, where on the way it is."""

from collections.abc import Mapping, Sequence

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from lab.render.curves import COLOURS, figure_image, style
from lab.render.grid import PAPER

DOT = 9  # px, diameter
SHARPER = 4  # a dot is drawn so many times as large and reduced, which smooths its edge
DPI = 100
ROOM = 0.02  # of the x axis, at both ends: a dot there is whole


class MovingCurves:
    """Panels above each other that share their x axis, drawn once; `at(i)` adds a line and dots at the i-th value.

    x        the values on the way, one a frame
    panels   by title, a number for each value, or several curves by name; NaN leaves a gap, and no dot there
    x_label  of the common axis
    size     width and height, px
    """

    def __init__(
        self,
        x: Sequence[float],
        panels: Mapping[str, Sequence[float] | Mapping[str, Sequence[float]]],
        x_label: str,
        size: tuple[int, int],
    ) -> None:
        self._dots: list[list[tuple[float, float, str]]] = [[] for _ in x]  # of each frame: left, top, colour
        self._spans: list[tuple[float, float]] = []  # of each panel: top, bottom
        with matplotlib.style.context(style(), after_reset=True):
            figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
            columns = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
            drawn = []
            for number, (axes, (title, panel)) in enumerate(zip(columns, panels.items(), strict=True)):
                # A lone curve has a colour of its own; named ones have the same in every panel.
                curves = panel if isinstance(panel, Mapping) else {"": panel}
                colours = [
                    COLOURS[(place if len(curves) > 1 else number) % len(COLOURS)] for place in range(len(curves))
                ]
                drawn += [(axes, values, colour) for values, colour in zip(curves.values(), colours, strict=True)]
                self._draw(axes, x, title, curves, colours)
            columns[-1].set_xlabel(x_label)
            several = [axes.lines for axes in columns if len(axes.lines) > 1]
            if several:
                figure.legend(handles=several[0], loc="outside upper right", ncols=len(several[0]), fontsize=8)
            self.plain = figure_image(figure, dpi=DPI)
        height = self.plain.height
        self._columns = [columns[0].transData.transform((value, 0))[0] for value in x]
        for axes in columns:
            box = axes.get_window_extent()
            self._spans.append((height - box.y1, height - box.y0))
        for axes, values, colour in drawn:
            for dots, value, y in zip(self._dots, x, values, strict=True):
                if y == y:  # not NaN
                    left, up = axes.transData.transform((value, y))
                    dots.append((left, height - up, colour))

    @staticmethod
    def _draw(
        axes: Axes, x: Sequence[float], title: str, curves: Mapping[str, Sequence[float]], colours: Sequence[str]
    ) -> None:
        for (name, values), colour in zip(curves.items(), colours, strict=True):
            axes.plot(x, values, color=colour, label=name)
        axes.set_title(title, fontsize=9, fontweight="normal", pad=3)
        axes.locator_params(axis="y", nbins=4)
        if min(x) < max(x):
            room = ROOM * (max(x) - min(x))
            axes.set_xlim(min(x) - room, max(x) + room)

    def at(self, index: int) -> Image.Image:
        """The curves with a line and a dot on each at value number `index`."""
        image = self.plain.copy()
        canvas = ImageDraw.Draw(image)
        for top, bottom in self._spans:
            canvas.line([(self._columns[index], top), (self._columns[index], bottom)], fill="#8a8a8a")
        for left, top, colour in self._dots[index]:
            dot = disc(colour, DOT + 4, PAPER, width=2)
            image.paste(dot, (round(left - dot.width / 2), round(top - dot.height / 2)), dot)
        return image


def disc(colour: str, diameter: int, rim: str, width: int = 1) -> Image.Image:
    """A disc with a rim so many pixels wide, smooth, on a transparent ground."""
    side, inner = diameter * SHARPER, width * SHARPER
    large = Image.new("RGBA", (side, side))
    canvas = ImageDraw.Draw(large)
    canvas.ellipse([0, 0, side - 1, side - 1], fill=rim)
    canvas.ellipse([inner, inner, side - 1 - inner, side - 1 - inner], fill=colour)
    return large.resize((diameter, diameter), Image.Resampling.LANCZOS)


def beside(*pictures: Image.Image) -> Image.Image:
    """Pictures from left to right on white, their tops on one line."""
    sheet = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), PAPER)
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    return sheet


def alike(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Pictures with white at their right and bottom, where one is smaller than the largest: frames of a video."""
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    sheets = [Image.new("RGB", (width, height), PAPER) for _ in pictures]
    for sheet, picture in zip(sheets, pictures, strict=True):
        sheet.paste(picture, (0, 0))
    return sheets
