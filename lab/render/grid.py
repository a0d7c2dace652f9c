"""Images in rows and columns with their names, laid out from measured text: nothing overlaps or is cut."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from PIL import Image, ImageDraw

from lab.render.images import Images, fit_cell, to_pil
from lab.render.text import Block, fit, fit_beside, wrap

PAPER, INK, SOFT_INK = "#ffffff", "#1a1a1a", "#454545"
MARGIN, GAP, LEADING = 12, 8, 4  # px: around the sheet, between cells, between an image and its caption
SHAPE = 4 / 3  # width to height that a sheet aims at where the number of columns is free


def grid(
    images: Images,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    cell: int = 128,
) -> Image.Image:
    """Lay images out row by row on a white sheet, each with its caption beneath it.

    Args:
        images: (B, 3, H, W) in [-1, 1], or PIL pictures of any sizes.
        captions: one text an image.
        columns: images a row; default: what the labels imply, else about a 4:3 sheet with few blanks.
        row_labels: one text a row, left of it.
        column_labels: one text a column, above it.
        title: a line above everything.
        cell: longest side of an image on the sheet, px; smaller images are enlarged by whole factors only.

    Raises:
        ValueError: no images, or texts and images that do not match in number.
    """
    tiles = [fit_cell(image, cell) for image in to_pil(images)]
    columns = columns or _columns(tiles, row_labels, column_labels)
    rows = math.ceil(len(tiles) / columns)
    _check_count("captions", captions, len(tiles))
    _check_count("row_labels", row_labels, rows)
    _check_count("column_labels", column_labels, columns)
    width, height = (max(tile.size[axis] for tile in tiles) for axis in (0, 1))
    return _Sheet(
        tiles=tiles,
        columns=columns,
        captions=fit(captions or [""] * len(tiles), width),
        left=fit_beside(row_labels or [""] * rows, height),
        above=fit(column_labels or [""] * columns, width),
        title=title or "",
    ).draw()


def _columns(tiles: Sequence[Image.Image], rows: Sequence[str] | None, columns: Sequence[str] | None) -> int:
    """The number of columns that the labels imply, else a compromise between few blanks and a 4:3 sheet."""
    if not tiles:
        raise ValueError("a grid needs at least one image")
    if columns is not None:
        return max(1, len(columns))
    if rows is not None:
        return math.ceil(len(tiles) / max(1, len(rows)))
    ideal = math.sqrt(len(tiles) * SHAPE * tiles[0].height / tiles[0].width)
    return min(
        range(1, len(tiles) + 1),
        key=lambda count: 2 * (-len(tiles) % count) / len(tiles) + abs(math.log(count / ideal)),
    )


def _check_count(name: str, texts: Sequence[str] | None, count: int) -> None:
    if texts is not None and len(texts) != count:
        raise ValueError(f"{name} holds {len(texts)} texts for {count} places")


@dataclass(frozen=True)
class _Sheet:
    """Everything measured; positions in px follow from the sizes alone."""

    tiles: list[Image.Image]
    columns: int
    captions: list[Block]
    left: list[Block]
    above: list[Block]
    title: str

    def draw(self) -> Image.Image:
        heading = wrap(self.title, max(self._right_edge() - 2 * MARGIN, 320), size=17, bold=True)
        head = MARGIN + (heading.height + GAP if self.title else 0)
        label_height = max(block.height for block in self.above)
        tops = self._tops(head + (label_height + LEADING if label_height else 0))
        size = (max(self._right_edge(), heading.width + 2 * MARGIN), tops[-1] - GAP + MARGIN)
        sheet = Image.new("RGB", size, PAPER)
        canvas = ImageDraw.Draw(sheet)
        heading.draw(canvas, MARGIN, MARGIN, INK)
        self._draw_labels(canvas, head + label_height, tops)
        self._draw_cells(sheet, canvas, tops)
        return sheet

    def _draw_labels(self, canvas: ImageDraw.ImageDraw, bottom: float, tops: list[int]) -> None:
        """Column labels stand on one line above the cells, row labels in the middle of their images."""
        for column, block in enumerate(self.above):
            block.draw(canvas, self._middle(column), bottom - block.height, INK, centred=True)
        for row, block in enumerate(self.left):
            block.draw(canvas, MARGIN, tops[row] + max(0, self._tile_height - block.height) // 2, INK)

    def _draw_cells(self, sheet: Image.Image, canvas: ImageDraw.ImageDraw, tops: list[int]) -> None:
        for index, (tile, caption) in enumerate(zip(self.tiles, self.captions, strict=True)):
            top, middle = tops[index // self.columns], self._middle(index % self.columns)
            sheet.paste(tile, (middle - tile.width // 2, top + (self._tile_height - tile.height) // 2))
            caption.draw(canvas, middle, top + self._tile_height + LEADING, SOFT_INK, centred=True)

    @cached_property
    def _tile_height(self) -> int:
        return max(tile.height for tile in self.tiles)

    @cached_property
    def _pitch(self) -> int:
        """From one column to the next, px: the widest image or text, made even so that middles are whole."""
        widest = max(*(tile.width for tile in self.tiles), *(b.width for b in self.captions + self.above), 2)
        return widest + widest % 2 + GAP

    @cached_property
    def _first_column(self) -> int:
        label_width = max(block.width for block in self.left)
        return MARGIN + (label_width + GAP if label_width else 0)

    def _middle(self, column: int) -> int:
        return self._first_column + column * self._pitch + (self._pitch - GAP) // 2

    def _right_edge(self) -> int:
        return self._first_column + self.columns * self._pitch - GAP + MARGIN

    def _tops(self, first: int) -> list[int]:
        """Top of each row of images, and where one more row would start."""
        return list(accumulate((self._row_height(row) + GAP for row in range(len(self.left))), initial=first))

    def _row_height(self, row: int) -> int:
        """A row is as high as its image with the longest of its own captions, or as its label."""
        captions = self.captions[row * self.columns : (row + 1) * self.columns]
        below = max(block.height for block in captions)
        return max(self._tile_height + (below + LEADING if below else 0), self.left[row].height)
