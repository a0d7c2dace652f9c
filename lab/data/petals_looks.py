"""What petals, centres and backgrounds look like: outlines in flower radii, colours in bytes."""

from dataclasses import dataclass

Colour = tuple[int, int, int]  # red, green, blue, 0..255


@dataclass(frozen=True)
class Shape:
    """A petal's outline: half-width ~ t^base (1 - t)^tip along its length, and what happens at its tip."""

    base: float
    tip: float
    width: float  # greatest half-width
    room: float = 0.93  # greatest part of its sector that a petal takes, so that neighbours stay apart
    notch: float = 0.0  # depth of the cleft in the tip
    ruffle: float = 0.0  # depth of the teeth along the tip


SHAPES = {
    "round": Shape(base=0.75, tip=0.5, width=0.44),
    "pointed": Shape(base=0.8, tip=1.15, width=0.34),
    "narrow": Shape(base=0.5, tip=0.4, width=0.13, room=0.82),
    "heart": Shape(base=1.7, tip=0.45, width=0.46, room=0.84, notch=0.2),
    "spoon": Shape(base=2.6, tip=0.5, width=0.27),
    "ruffled": Shape(base=2.2, tip=0.45, width=0.5, room=0.84, ruffle=0.12),
}
PETAL_COLOURS = {
    "red": (212, 28, 36),
    "orange": (250, 130, 15),
    "yellow": (252, 216, 36),
    "green": (140, 205, 60),
    "blue": (52, 88, 224),
    "purple": (132, 52, 178),
    "pink": (250, 136, 184),
    "white": (246, 244, 240),
}
CENTRE_COLOURS = {
    "yellow": (250, 205, 40),
    "brown": (96, 56, 28),
    "white": (250, 246, 232),
    "orange": (240, 130, 20),
    "black": (38, 28, 40),
    "red": (190, 30, 40),
    "purple": (110, 40, 140),
    "green": (110, 170, 60),
}
CENTRE_SIZES = {"small": 0.17, "large": 0.30}  # radii
# Two tones each, bytes; a flower never stands before a background of its own colour.
BACKGROUNDS = {
    "meadow": ((58, 104, 44), (142, 172, 84)),
    "forest": ((20, 50, 34), (62, 112, 66)),
    "sky": ((112, 166, 216), (200, 224, 238)),
    "sand": ((188, 164, 128), (232, 216, 184)),
    "earth": ((70, 52, 38), (146, 116, 84)),
    "dusk": ((48, 48, 72), (122, 112, 140)),
}
UNFIT = {
    "green": ("meadow",),
    "blue": ("sky", "dusk"),
    "white": ("sky", "sand"),
    "purple": ("dusk",),
    "yellow": ("sand",),
    "orange": ("sand", "earth"),
}
