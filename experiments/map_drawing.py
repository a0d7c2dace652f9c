"""A map of pictures with names on it: each name beside its place, none over another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from lab.clip.colours import COLOURS, PROTOTYPES
from lab.render import to_pil
from lab.render.moving import disc
from lab.render.text import face, wrap

SIDE, MARGIN, LEGEND = 1280, 40, 30  # px: width of a map, around what lies on it, height of a line below
PAPER, INK, SOFT_INK, LINE = "#ffffff", "#1a1a1a", "#454545", "#8a8a8a"
PICTURE = (16, 48)  # px: least and greatest side of a picture
DOT, PLACE = 11, 7  # px: diameters of a picture's dot, a name's
TEXT, PAD = 11, 2  # px, of names, and around them
TURNS, STEP, REACH = 16, 6, 240  # directions where room is looked for, and distances from a name's place, px
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Marks:
    """What stands at each picture's place, and what its colours mean."""

    tiles: list[Image.Image]  # RGBA
    legend: list[tuple[str, str]]  # name and colour


def thumbnails(images: Tensor) -> Marks:
    """Small pictures of (N, 3, H, W) in [-1, 1], as large as there is room for on the map."""
    side = round(min(max(0.85 * SIDE / math.sqrt(len(images)), PICTURE[0]), PICTURE[1]))
    pictures = [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in to_pil(images)]
    return Marks([picture.convert("RGBA") for picture in pictures], [])


def dots(colours: Sequence[int]) -> Marks:
    """A dot for each index into COLOURS."""
    codes = [f"#{PROTOTYPES[name][0]}" for name in COLOURS]
    present = sorted(set(colours))
    drawn = {colour: disc(codes[colour], DOT, LINE) for colour in present}
    return Marks([drawn[colour] for colour in colours], [(COLOURS[colour], codes[colour]) for colour in present])


def draw_map(places: Tensor, marks: Marks, name_places: Tensor, names: Sequence[str], title: str) -> Image.Image:
    """Marks at places (N, 2), names at theirs (K, 2), all to one scale, under a title."""
    heading = wrap(title, SIDE - 2 * MARGIN, size=17, bold=True)
    top = heading.height + 10
    everywhere, height = on_sheet(np.concatenate([places.double().numpy(), name_places.double().numpy()]))
    everywhere += [0, top]
    sheet = Image.new("RGB", (SIDE, top + height + (LEGEND if marks.legend else 0)), PAPER)
    heading.draw(ImageDraw.Draw(sheet), MARGIN // 2, 10, INK)
    for tile, (x, y) in zip(marks.tiles, everywhere[: len(places)], strict=True):
        sheet.paste(tile, (round(x - tile.width / 2), round(y - tile.height / 2)), tile)
    draw_names(sheet, everywhere[len(places) :], names, np.array([0.0, top, SIDE, top + height]))
    draw_legend(sheet, marks.legend)
    return sheet


def on_sheet(places: Floats) -> tuple[Floats, int]:
    """Places (M, 2) in pixels, y downwards, the larger extent from margin to margin; and the height they need."""
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    scale = (SIDE - 2 * MARGIN) / (float(extent.max()) or 1.0)
    across, up = ((places - low) * scale).T
    left, height = (SIDE - extent[0] * scale) / 2, extent[1] * scale + 2 * MARGIN
    return np.stack([left + across, height - MARGIN - up], axis=1), math.ceil(height)


def draw_names(sheet: Image.Image, places: Floats, names: Sequence[str], within: Floats) -> None:
    """A dot at each place (K, 2), and its name joined to it by a line where it stands apart."""
    height = sum(face(TEXT).getmetrics())
    sizes = np.array([[face(TEXT).getlength(name) + 2 * PAD, height] for name in names])
    boxes = find_room(places, sizes, within).tolist()
    canvas = ImageDraw.Draw(sheet, "RGBA")
    for (x, y), box in zip(places, boxes, strict=True):
        nearest = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
        canvas.line([(x, y), nearest], fill=INK, width=1)
    dot = disc(INK, PLACE, PAPER)
    for x, y in places:
        sheet.paste(dot, (round(x - PLACE / 2), round(y - PLACE / 2)), dot)
    for name, (left, up, right, down) in zip(names, boxes, strict=True):
        canvas.rounded_rectangle([left, up, right, down], 3, fill=(255, 255, 255, 225))
        canvas.text((left + PAD, up), name, fill=INK, font=face(TEXT))


def find_room(places: Floats, sizes: Floats, within: Floats) -> Floats:
    """A box (K, 4) of each size (K, 2) near its place (K, 2), in `within` (4,), over no other box and no place.

    A box is left, top, right, bottom; a size width and height. Where all is full, as far as a name may stand
    away, its box stands beside its place all the same.
    """
    taken = np.concatenate([places - PLACE / 2, places + PLACE / 2], axis=1)
    found = np.zeros((len(places), 4))
    middle = places.mean(axis=0)
    # From the outside inwards, and outwards first: the rim of a crowd leaves its middle free.
    for number in np.argsort(-np.linalg.norm(places - middle, axis=1), kind="stable").tolist():
        boxes = around(places[number], sizes[number], places[number] - middle)
        others = np.delete(taken, number, axis=0)
        apart = (boxes[:, None, :2] >= others[None, :, 2:]) | (boxes[:, None, 2:] <= others[None, :, :2])
        inside = np.hstack([boxes[:, :2] >= within[:2], boxes[:, 2:] <= within[2:]])
        free = np.all(np.any(apart, axis=2), axis=1) & np.all(inside, axis=1)
        found[number] = boxes[free.argmax()]  # the first that is free, else the first
        taken = np.concatenate([taken, found[number : number + 1]])
    return found


def around(place: Floats, size: Floats, outwards: Floats) -> Floats:
    """Boxes (B, 4) of one size around a place (2,), the nearest first, and of these those in direction `outwards`."""
    ahead = math.atan2(outwards[1], outwards[0])
    turns = sorted(range(TURNS), key=lambda turn: min(turn, TURNS - turn))  # ahead, then to both sides, then behind
    angles = ahead + 2 * math.pi * np.array(turns) / TURNS
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    half = size / 2
    distances = np.arange(PLACE / 2 + 2, REACH, STEP)
    middles = place + directions * (distances[:, None, None] + half)  # (distances, directions, 2)
    return np.concatenate([middles - half, middles + half], axis=2).reshape(-1, 4)


def draw_legend(sheet: Image.Image, legend: Sequence[tuple[str, str]]) -> None:
    """Names of the dots' colours along the lower edge."""
    canvas, left, middle = ImageDraw.Draw(sheet), float(MARGIN // 2), sheet.height - 16
    for name, colour in legend:
        dot = disc(colour, DOT, LINE)
        sheet.paste(dot, (round(left), middle - DOT // 2), dot)
        canvas.text((left + DOT + 5, middle), name, fill=SOFT_INK, font=face(12), anchor="lm")
        left += DOT + 5 + face(12).getlength(name) + 18
