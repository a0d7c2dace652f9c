"""Texts on their way to the pictures: a share of the gap between both means at a time, seen from the side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from experiments.clip_space import Space, around_names, gap, moved
from lab.clip.colours import COLOURS, PROTOTYPES
from lab.render import Scrub, figure_image, save_video, style
from lab.render.moving import MovingCurves, beside

SHARES = [part / 20 for part in range(21)]  # of the gap
PANELS = {  # what is measured at each
    "left": "gap that is left (norm)",
    "mingled": "share of a name's nearest that are pictures",
    "met": "share of its nearest pictures that are of its class",
}
SIZE = (700, 560)  # px, of the view


def measure(found: Space, k: int) -> dict[str, list[float]]:
    """Each of PANELS, a number for each of SHARES."""
    spaces = [moved(found, share * gap(found)) for share in SHARES]
    mingled, met = zip(*(around_names(one, k) for one in spaces), strict=True)
    left = [float(gap(one).norm()) for one in spaces]
    return {"left": left, "mingled": list(mingled), "met": list(met)}


def side_view(found: Space) -> tuple[Tensor, Tensor]:
    """Two axes (2, D) of unit norm: along the gap, and across it where pictures vary most; and the pictures' mean."""
    middle = found.pictures.mean(dim=0)
    along = torch.nn.functional.normalize(gap(found), dim=0)
    centred = found.pictures - middle
    _, _, axes = torch.linalg.svd(centred - (centred @ along)[:, None] * along, full_matrices=False)
    return torch.stack([along, axes[0]]), middle


def views(found: Space, colours: Sequence[int]) -> list[Image.Image]:
    """A frame for each of SHARES: pictures as dots of their colour, which stay, and names, which move."""
    axes, middle = side_view(found)
    pictures = (found.pictures - middle) @ axes.T
    codes = [f"#{PROTOTYPES[COLOURS[colour]][0]}" for colour in colours]
    ways = [(moved(found, share * gap(found)).texts - middle) @ axes.T for share in SHARES]
    low, high = torch.cat([pictures, ways[0], ways[-1]]).aminmax(dim=0)
    frames = []
    for share, names in zip(SHARES, ways, strict=True):
        with matplotlib.style.context(style(), after_reset=True):
            figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100)
            plot = figure.subplots()
            plot.scatter(pictures[:, 0], pictures[:, 1], c=codes, s=12, edgecolors="#8a8a8a", linewidths=0.3)
            plot.scatter(names[:, 0], names[:, 1], c="#1a1a1a", s=16, marker="D", label="names of classes")
            plot.set(xlabel="along the gap", ylabel="across it, where pictures vary most")
            room = 0.04 * (high - low)
            plot.set_xlim(float(low[0] - room[0]), float(high[0] + room[0]))
            plot.set_ylim(float(low[1] - room[1]), float(high[1] + room[1]))
            plot.legend(loc="upper left")
            plot.set_title(f"texts moved by {share:.2f} of the gap")
            frames.append(figure_image(figure, dpi=100))
    return frames


def film(
    found: Space, colours: Sequence[int], measured: Mapping[str, Sequence[float]], path: Path, facts: Any, fps: float
) -> Scrub:
    """Write the video, and give what a page shows it by."""
    panels = {title: measured[name] for name, title in PANELS.items()}
    curves = MovingCurves(SHARES, panels, "share of the gap", (480, SIZE[1]))
    frames = [beside(view, curves.at(number)) for number, view in enumerate(views(found, colours))]
    size = save_video(frames, path, facts, fps)
    return Scrub(path, size, "pictures stay, names move", [f"{share:.2f} of the gap" for share in SHARES], fps)
