"""How a flower of petals is painted: every pixel asks which petal is nearest, and what it looks like there.

Lengths are in flower radii and angles in radians unless a comment says otherwise; planes are (B, 1, H, W).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.data.petals_kinds import Kind
from lab.data.petals_looks import (
    BACKGROUNDS,
    CENTRE_COLOURS,
    CENTRE_SIZES,
    PETAL_COLOURS,
    SHAPES,
    UNFIT,
    Colour,
)

EDITION = 2  # of the drawing: raise it with every change that shows, for it keys caches
NUMBERS = 64  # random numbers that one flower may use


class Draws:
    """Uniform random numbers (B, NUMBERS) of a batch of flowers, handed out a column at a time."""

    def __init__(self, numbers: Tensor) -> None:
        self._columns = iter(numbers.unbind(1))

    def between(self, low: float, high: float) -> Tensor:
        """One number a flower (B, 1, 1, 1)."""
        return (low + (high - low) * next(self._columns))[:, None, None, None]

    def turn(self) -> Tensor:
        """Any angle (B, 1, 1, 1)."""
        return self.between(-math.pi, math.pi)


@dataclass(frozen=True)
class Place:
    """How a flower lies in its picture, each (B, 1, 1, 1)."""

    x: Tensor  # of the middle, in pictures
    y: Tensor
    size: Tensor  # the flower's radius, in pictures
    tilt: Tensor  # the axis about which it is tilted away, and
    squash: Tensor  # by how much that shortens it
    rotation: Tensor


@dataclass(frozen=True)
class Pose:
    """Each pixel of a canvas in the flower's own coordinates."""

    x: Tensor  # (B, 1, 1, W) from the middle, upright
    y: Tensor  # (B, 1, H, 1)
    radius: Tensor  # distance from the middle in the flower's plane
    angle: Tensor  # from the first petal's axis
    pixel: Tensor  # (B, 1, 1, 1) width of a pixel


def paint(kinds: list[Kind], numbers: Tensor, size: int, rotation: float = 1.0) -> tuple[Tensor, Tensor]:
    """Pictures (B, size, size, 3) uint8 of the kinds, and how much of each pixel is petal (B, size, size).

    All chance is in `numbers`, uniform (B, NUMBERS). Drawn at 2 to 4 times the size and averaged down.
    rotation: the share of a full turn within which a flower is turned; with 0 its first petal points upwards.
    """
    oversampling = max(2, min(4, 128 // size))
    draws = Draws(numbers)
    place, light = _place(draws, rotation), draws.turn()
    behind = _backdrop(kinds, draws, _pose(place, size))
    pose = _pose(place, size * oversampling)
    petals, petal_cover = _petals(kinds, draws, pose, light)
    middle, middle_cover = _centre(kinds, draws, pose, light)
    flower, cover = _over(petals, middle, middle_cover), torch.maximum(petal_cover, middle_cover)
    visible = petal_cover * (1 - middle_cover)
    flower, cover, visible = (F.avg_pool2d(p, oversampling) for p in (flower * cover, cover, visible))
    picture = (behind * (1 - cover) + flower).clamp(0, 1)
    return (picture * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous(), visible[:, 0]


def _over(below: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    """`colour` laid over `below` where `cover` is 1."""
    return torch.lerp(below, colour, cover)


def _cover(inside: Tensor, pose: Pose) -> Tensor:
    """How much of each pixel lies in a shape, from how far inside its outline the pixel's middle is."""
    return (inside / pose.pixel + 0.5).clamp(0, 1)


def _column(values: Sequence[float]) -> Tensor:
    """One number a flower (B, 1, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None]


def _colours(colours: list[Colour]) -> Tensor:
    """Colours in bytes, one a flower, as (B, 3, 1, 1) in [0, 1]."""
    return torch.tensor(colours, dtype=torch.float32)[:, :, None, None] / 255


def _shapes(kinds: list[Kind]) -> dict[str, Tensor]:
    """The numbers of each flower's petal outline, each (B, 1, 1, 1)."""
    shapes = [asdict(SHAPES[kind.petal_shape]) for kind in kinds]
    return {name: _column([shape[name] for shape in shapes]) for name in shapes[0]}


def _place(draws: Draws, rotation: float) -> Place:
    """Random place, size, rotation and tilt; the flower stays whole inside the picture."""
    size = draws.between(0.38, 0.47)
    room = 0.48 - size
    x, y = 0.5 + room * draws.between(-1, 1), 0.5 + room * draws.between(-1, 1)
    tilt, squash, turn = draws.turn(), draws.between(1, 1.2), draws.turn()
    return Place(x, y, size, tilt, squash, rotation * turn - math.pi / 2)


def _pose(place: Place, canvas: int) -> Pose:
    """The flower's coordinates of each pixel of a canvas that many pixels wide."""
    grid = (torch.arange(canvas) + 0.5) / canvas
    x = (grid.view(1, 1, 1, -1) - place.x) / place.size
    y = (grid.view(1, 1, -1, 1) - place.y) / place.size
    along = (x * place.tilt.cos() + y * place.tilt.sin()) * place.squash
    down = y * place.tilt.cos() - x * place.tilt.sin()
    angle = torch.atan2(down, along) + place.tilt - place.rotation
    return Pose(x, y, torch.hypot(along, down), angle, 1 / (place.size * canvas))


def _backdrop(kinds: list[Kind], draws: Draws, pose: Pose) -> Tensor:
    """All that lies behind the flower (B, 3, H, W)."""
    return _leaves(_background(kinds, draws, pose), draws, pose)


def _background(kinds: list[Kind], draws: Draws, pose: Pose) -> Tensor:
    """A soft gradient with a few lights and shadows, all out of focus, darker round the flower."""
    choice = draws.between(0, 1).flatten().tolist()
    fit = [[b for b in BACKGROUNDS if b not in UNFIT.get(kind.petal_colour, ())] for kind in kinds]
    chosen = [BACKGROUNDS[names[int(u * len(names))]] for names, u in zip(fit, choice, strict=True)]
    low, high = _colours([c[0] for c in chosen]), _colours([c[1] for c in chosen])
    direction = draws.turn()
    ramp = torch.sigmoid(0.7 * (pose.x * direction.cos() + pose.y * direction.sin()))
    for _ in range(6):
        away = torch.hypot(pose.x - draws.between(-1.3, 1.3), pose.y - draws.between(-1.3, 1.3))
        ramp = ramp + draws.between(-0.3, 0.45) * torch.sigmoid((draws.between(0.3, 1.0) - away) * 7)
    shadow = 1 - 0.35 * torch.exp(-((pose.radius / 1.05) ** 4))
    return torch.lerp(low, high, ramp) * draws.between(0.85, 1.1) * shadow


def _leaves(picture: Tensor, draws: Draws, pose: Pose) -> Tensor:
    """A stem and three leaves behind the flower."""
    green = torch.cat([draws.between(*span) for span in ((0.10, 0.26), (0.30, 0.46), (0.10, 0.20))], dim=1)
    lean = draws.between(-0.35, 0.35)
    stem = 0.06 - (pose.x - lean * pose.y**2).abs()
    stem = torch.where(pose.y > 0, stem, -1.0)
    picture = _over(picture, green * 0.9, _cover(stem, pose))
    for quarter in range(3):
        towards = draws.between(-0.6, 0.6) + math.pi * (0.1 + 0.4 * quarter)
        length, width = draws.between(1.1, 1.6), draws.between(0.16, 0.28)
        u = (pose.x * towards.cos() + pose.y * towards.sin()) / length
        v = pose.y * towards.cos() - pose.x * towards.sin() - draws.between(-0.2, 0.2) * u**2
        inside = width * 4 * u * (1 - u) - v.abs()
        rib = 1 - 0.3 * torch.exp(-((v / 0.025) ** 2))
        shade = (0.75 + 0.35 * u + 0.12 * torch.sign(v)) * rib * draws.between(0.8, 1.15)
        picture = _over(picture, green * shade, _cover(inside, pose))
    return picture


def _petals(kinds: list[Kind], draws: Draws, pose: Pose, light: Tensor) -> tuple[Tensor, Tensor]:
    """Colour (B, 3, H, W) and cover of the petals."""
    shape = _shapes(kinds)
    count = _column([kind.petal_count for kind in kinds])
    half_sector = math.pi / count
    turned = pose.angle - draws.between(-0.35, 0.35) * pose.radius  # curved petals
    number = torch.round(turned / (2 * half_sector))
    off_axis = turned - number * 2 * half_sector
    u, v = pose.radius * off_axis.cos(), pose.radius * off_axis.sin()  # along and across the petal
    length = 1 - 0.05 * (1 + torch.sin(number.remainder(count) * 2.4 + draws.between(0, 6.3)))
    t = (u / length).clamp(0, 1)

    sector = half_sector.clamp(max=1.3).tan()  # half-width of the sector at u = 1
    widest = shape["base"] / (shape["base"] + shape["tip"])  # where along the petal
    width = torch.minimum(shape["width"] * draws.between(0.92, 1.04), shape["room"] * widest * sector)
    half_width = width * (t / widest) ** shape["base"] * ((1 - t) / (1 - widest)) ** shape["tip"]
    across = (v / width).clamp(-1, 1)
    cleft = shape["notch"] * torch.exp(-((across / 0.35) ** 2))
    teeth = shape["ruffle"] * (0.5 + 0.5 * torch.cos(5 * math.pi * across))
    inside = torch.minimum(half_width - v.abs(), length * (1 - cleft - teeth) - u)

    edge = (v.abs() / torch.minimum(half_width, u * sector).clamp(min=1e-3)).clamp(0, 1)
    shade = draws.between(0.68, 0.85) + draws.between(0.2, 0.36) * t  # deeper towards the middle
    shade = shade - 0.30 * edge**4 + 0.10 * (1 - edge**2)  # hollow, with dark seams between neighbours
    shade = shade - 0.10 * torch.exp(-((v / 0.02) ** 2)) * (1 - t)  # the midrib
    shade = shade + 0.05 * torch.cos(across * 14) * (1 - edge) + 0.07 * torch.cos(pose.angle - light)
    colour = _colours([PETAL_COLOURS[kind.petal_colour] for kind in kinds]) * draws.between(0.95, 1.03)
    return colour * shade, _cover(inside, pose)


def _centre(kinds: list[Kind], draws: Draws, pose: Pose, light: Tensor) -> tuple[Tensor, Tensor]:
    """Colour (B, 3, H, W) and cover of the disc in the middle: a dome covered in florets."""
    size = _column([CENTRE_SIZES[kind.centre_size] for kind in kinds]) * draws.between(0.92, 1.08)
    r = pose.radius / size
    florets = torch.sin(r * 11 - pose.angle * 5) * torch.sin(r * 11 + pose.angle * 8)
    shade = 1.08 - 0.35 * r**2 + 0.14 * florets * r.clamp(max=1) + 0.15 * r * torch.cos(pose.angle - light)
    colour = _colours([CENTRE_COLOURS[kind.centre_colour] for kind in kinds]) * draws.between(0.92, 1.04)
    return colour * shade, _cover(size - pose.radius, pose)
