"""The colour a picture's flower would be called by: one of the eleven basic colour terms of English.

The terms are those of Berlin and Kay, "Basic color terms" (1969); a pixel takes the term of the prototype
that is nearest to it in CIE L*a*b*, and the picture takes the term with most votes near its middle.
"""

from functools import cache

import torch
from torch import Tensor

PROTOTYPES = {
    "red": ("ff0000", "c80815", "8b0000", "e32636", "b22222", "5e0c12"),
    "orange": ("ff8c00", "ff7518", "f28500", "e2610c", "ffae42", "f7a35c", "d8945c"),
    "yellow": ("ffff00", "ffd700", "f5d033", "fff176", "e6c200", "f7ec9e", "c9a800"),
    "green": ("008000", "3cb371", "556b2f", "6b8e23", "9acd32", "2e4a1e", "8fbc8f", "a4c639", "16240f"),
    "blue": ("0000ff", "1e3f9e", "4169e1", "6495ed", "87ceeb", "1c2a5e", "7b8fe0"),
    "purple": ("800080", "6a0dad", "9370db", "8a2be2", "4b0082", "b19cd9", "b57edc", "5a2d6e", "a64ca6"),
    "pink": ("ffc0cb", "ff69b4", "ff1493", "e75480", "f4a6c0", "de5d83", "c71585", "e9a3d0", "f08a8a"),
    "white": ("ffffff", "f0f0f0", "f7f7e8", "dedee6", "f3e9ee", "c8c8c8", "b6bcbc", "d2d6c0"),
    "black": ("000000", "141414"),
    "brown": ("8b4513", "5c4033", "6b4423", "3b2a1a", "8f7a5a", "9a7248"),
    "grey": ("8c8c8c", "808080", "696969", "404040"),
}
COLOURS = tuple(PROTOTYPES)
# Leaves, soil, wood and shadow: mostly what is behind a flower, so they must fill its place to be believed.
BACKDROP = {"green": 0.3, "brown": 0.3, "grey": 0.3, "black": 0.2}

LIGHTNESS_WEIGHT = 0.6  # shading moves L* more than it moves what a colour is called
LEVELS = 32  # a channel, in the table of names
SIDE = 36  # px, pictures are thinned out to this
CENTRE_WIDTH = 0.22  # picture widths, standard deviation of the votes' weight
RING = 0.08  # picture widths, the border that shows the background
RING_DISTRUST = 0.8  # share of a colour's votes that is lost where the border has no other colour


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB (..., 3) in [0, 1] to CIE L*a*b* (D65), IEC 61966-2-1 and CIE 15."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ (to_xyz / torch.tensor([[0.95047], [1.0], [1.08883]])).T
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


@cache
def _table() -> Tensor:
    """Index into COLOURS of every coarse RGB value (LEVELS, LEVELS, LEVELS)."""
    level = (torch.arange(LEVELS) + 0.5) / LEVELS
    rgb = torch.stack(torch.meshgrid(level, level, level, indexing="ij"), dim=-1)
    owners = torch.tensor([i for i, colour in enumerate(COLOURS) for _ in PROTOTYPES[colour]])
    codes = [code for colour in COLOURS for code in PROTOTYPES[colour]]
    prototypes = torch.tensor([list(bytes.fromhex(code)) for code in codes]) / 255
    weight = torch.tensor([LIGHTNESS_WEIGHT, 1.0, 1.0])
    distances = torch.cdist((rgb_to_lab(rgb) * weight).view(-1, 3), rgb_to_lab(prototypes) * weight)
    return owners[distances.argmin(1)].view(LEVELS, LEVELS, LEVELS)


def name_pixels(pixels: Tensor) -> Tensor:
    """The index into COLOURS of each pixel: (..., 3) uint8 -> (...) int64."""
    red, green, blue = (pixels // (256 // LEVELS)).long().unbind(-1)
    return _table()[red, green, blue]


def dominant_colours(pixels: Tensor) -> Tensor:
    """The index into COLOURS of each picture's flower: (N, S, S, 3) uint8 -> (N,) int64.

    Votes count by how near the middle they are. A colour that also fills the border loses most of them, for
    it is likely to be the background's; a flower that fills its whole picture still wins, having no rival.
    """
    stride = max(1, pixels.shape[1] // SIDE)
    return torch.cat([_dominant(part[:, ::stride, ::stride]) for part in pixels.split(512)])


def _dominant(pixels: Tensor) -> Tensor:
    votes = torch.nn.functional.one_hot(name_pixels(pixels), len(COLOURS)).float()  # (N, S, S, colours)
    offset = (torch.arange(pixels.shape[1]) + 0.5) / pixels.shape[1] - 0.5
    bell = torch.exp(-0.5 * (offset / CENTRE_WIDTH) ** 2)
    outside = (offset.abs()[:, None] > 0.5 - RING) | (offset.abs()[None] > 0.5 - RING)
    centre = torch.einsum("nhwc,h,w->nc", votes, bell / bell.sum(), bell / bell.sum())
    border = torch.einsum("nhwc,hw->nc", votes, outside / outside.sum())
    trust = torch.tensor([BACKDROP.get(colour, 1.0) for colour in COLOURS])
    return (centre * trust * (1 - RING_DISTRUST * border)).argmax(1)
