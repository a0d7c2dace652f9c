"""Random views for contrastive training: where to look and how bright it is, never what colour it is."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate


@dataclass(frozen=True)
class Augmentation:
    """Random crop, mirror, turn, brightness and erased patch, each drawn once a picture.

    area     smallest and greatest crop, as a share of the picture; above 1 its mirrored surroundings are seen
    aspect   greatest ratio of a crop's sides
    turn     degrees to either side
    light    greatest relative change of brightness and of contrast, the same for all three channels
    erase    probability that a square of a quarter to a half of the side is painted grey
    mirror   whether half of the pictures are mirrored
    """

    area: tuple[float, float] = (0.3, 1.0)
    aspect: float = 4 / 3
    turn: float = 20.0
    light: float = 0.15
    erase: float = 0.25
    mirror: bool = True

    def __call__(self, pixels: Tensor, size: int, generator: torch.Generator, rows: slice) -> Tensor:
        """Views (b, 3, size, size) in [-1, 1] of rows `rows` of a batch of pictures (B, S, S, 3) uint8.

        Numbers are drawn for the whole batch, so that each rank sees its part of what one process would see.
        """
        return self.views(pixels[rows], size, self.draws(len(pixels), generator)[rows])

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """All that is random in the views of `count` pictures, a row each."""
        return torch.rand(count, 12, generator=generator)

    def views(self, pixels: Tensor, size: int, drawn: Tensor) -> Tensor:
        """Views (B, 3, size, size) in [-1, 1] of pictures (B, S, S, 3) uint8, as drawn (B, 12)."""
        draws = drawn.unbind(1)
        pictures = pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        if pictures.shape[-1] >= 2 * size:  # bilinear sampling alone would alias
            pictures = interpolate(pictures, size=(round(1.25 * size),) * 2, mode="bilinear", antialias=True)
        grid = affine_grid(self._affine(draws[:6]), [len(pictures), 3, size, size], align_corners=False)
        views = grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        return self._erase(self._relight(views, draws[6:8]), draws[8:])

    def _affine(self, draws: tuple[Tensor, ...]) -> Tensor:
        """Matrices (b, 2, 3) from the view's coordinates to the picture's, both in [-1, 1]."""
        area = self.area[0] + (self.area[1] - self.area[0]) * draws[0]
        stretch = self.aspect ** (draws[1] - 0.5)  # square root of the ratio of the sides
        width, height = area.sqrt() * stretch, area.sqrt() / stretch
        x, y = (2 * draws[2] - 1) * (1 - width).clamp(min=0), (2 * draws[3] - 1) * (1 - height).clamp(min=0)
        angle = math.radians(self.turn) * (2 * draws[4] - 1)
        mirror = torch.where((draws[5] < 0.5) & self.mirror, -1.0, 1.0)
        cos, sin = angle.cos(), angle.sin()
        first = torch.stack([width * cos * mirror, -height * sin, x], dim=1)
        return torch.stack([first, torch.stack([width * sin * mirror, height * cos, y], dim=1)], dim=1)

    def _relight(self, views: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Contrast about the picture's own mean, then brightness, as on values in [0, 1]."""
        contrast, brightness = (1 + self.light * (2 * draw - 1)[:, None, None, None] for draw in draws)
        mean = views.mean(dim=(1, 2, 3), keepdim=True)
        return (((views - mean) * contrast + mean + 1) * brightness - 1).clamp_(-1, 1)

    def _erase(self, views: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """A grey square, in some of the views."""
        chance, side = draws[0], 0.25 + 0.25 * draws[1]
        place = (torch.arange(views.shape[-1]) + 0.5) / views.shape[-1]
        column, row = ((place - draw[:, None] * (1 - side[:, None])) / side[:, None] for draw in draws[2:])
        square = _inside(row)[:, :, None] & _inside(column)[:, None, :]
        hit = (chance < self.erase)[:, None, None]
        return views.masked_fill((square & hit)[:, None], 0.0)


def _inside(place: Tensor) -> Tensor:
    return (place >= 0) & (place < 1)


def mixing(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """With which other of a batch each picture is blended (B,), and its own weight (B,): 1 for half of them.

    Zhang et al. 2018, "mixup: beyond empirical risk minimization", with weights uniform in [0, 1).
    """
    partners = torch.randperm(count, generator=generator)
    weight = torch.rand(count, generator=generator)
    return partners, torch.where(torch.rand(count, generator=generator) < 0.5, 1.0, weight)


@dataclass(frozen=True)
class Blend:
    """Some views of a batch of B, half of them blended with others, and of the whole batch with which and how."""

    views: Tensor  # (b, 3, S, S)
    partners: Tensor  # (B,) int64
    weight: Tensor  # (B,) its own share of each


def blend(
    augmentation: Augmentation,
    pixels: Tensor,
    size: int,
    generator: torch.Generator,
    rows: slice,
    own_first: bool = False,
) -> Blend:
    """Rows `rows` of a batch of pictures (B, S, S, 3) uint8, seen as `augmentation` has it, and blended.

    own_first: whether the greater share is always a picture's own. Only views that these rows need are made.
    """
    drawn = augmentation.draws(len(pixels), generator)
    partners, weight = mixing(len(pixels), generator)
    weight = torch.maximum(weight, 1 - weight) if own_first else weight
    own = torch.arange(len(pixels))[rows]
    needed, places = torch.cat([own, partners[own]]).unique(return_inverse=True)
    views = augmentation.views(pixels[needed], size, drawn[needed])
    mine, others = views[places].chunk(2)
    share = weight[own, None, None, None]
    return Blend(share * mine + (1 - share) * others, partners, weight)
