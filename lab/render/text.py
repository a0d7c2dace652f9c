"""Text that fits its box: measured, wrapped and sized before anything is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageDraw, ImageFont

COMFORTABLE = range(13, 10, -1)  # px, tried first, largest first
SMALL = range(11, 8, -1)  # px, only where a word would otherwise be broken
WIDEST_WORD = 160  # px: a column grows this far for a long word, which is broken only beyond
LABEL_WIDTHS = range(72, 313, 24)  # px, for labels beside a row


@cache
def face(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib's own files: the same on every machine, no system font needed."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


@dataclass(frozen=True)
class Block:
    """Wrapped lines of one size, with the room they take in px."""

    lines: tuple[str, ...]
    size: int
    bold: bool = False

    @property
    def width(self) -> int:
        """Width of the longest line, px."""
        return max((_width(line, self.size, self.bold) for line in self.lines), default=0)

    @property
    def line_height(self) -> int:
        """Distance between baselines, px: ascent and descent, so that no letter touches the next line."""
        return sum(face(self.size, self.bold).getmetrics())

    @property
    def height(self) -> int:
        """Height of all lines, px."""
        return self.line_height * len(self.lines)

    def draw(self, canvas: ImageDraw.ImageDraw, x: float, y: float, fill: str, centred: bool = False) -> None:
        """Draw downwards from y; x is the left edge, or the middle of every line where `centred`."""
        anchor = "ma" if centred else "la"
        for number, line in enumerate(self.lines):
            position = (x, y + number * self.line_height)
            canvas.text(position, line, fill=fill, font=face(self.size, self.bold), anchor=anchor)


def wrap(text: str, width: float, size: int, bold: bool = False) -> Block:
    """Break text into as few lines of at most `width` px as possible, of about equal length.

    Line breaks in the text stay; a single word wider than `width` is broken between letters.
    """
    lines = [line for part in text.splitlines() for line in _balance(part.split(), width, size, bold)]
    return Block(tuple(lines), size, bold)


def fit(texts: Sequence[str], width: int, lines: int = 3) -> list[Block]:
    """Wrap texts into columns of `width` px in one common size: large and short where that is possible.

    The first of: a comfortable size with at most `lines` lines; any size that breaks no word; the smallest
    size in a wider column (up to `WIDEST_WORD` px).
    """
    words = [word for text in texts for word in text.split()]
    for size in COMFORTABLE:
        blocks = [wrap(text, width, size) for text in texts]
        if _widest(words, size) <= width and all(len(block.lines) <= lines for block in blocks):
            return blocks
    for size in SMALL:
        if _widest(words, size) <= width:
            return [wrap(text, width, size) for text in texts]
    wider = max(width, min(_widest(words, SMALL[-1]), WIDEST_WORD))
    return [wrap(text, wider, SMALL[-1]) for text in texts]


def fit_beside(texts: Sequence[str], height: int) -> list[Block]:
    """Wrap labels that stand left of something `height` px high: the narrowest column where four lines do.

    In the widest column a label may be higher than `height`, and an endless word is broken.
    """
    size = COMFORTABLE[0]
    words = [word for text in texts for word in text.split()]
    for width in LABEL_WIDTHS:
        blocks = [wrap(text, width, size) for text in texts]
        if _widest(words, size) <= width and all(b.height <= height and len(b.lines) <= 4 for b in blocks):
            break
    return blocks


def _balance(words: list[str], width: float, size: int, bold: bool) -> list[str]:
    """Fill lines greedily, then narrow the column as long as it costs no further line."""
    lines = _fill(words, width, size, bold)
    while len(lines) > 1:
        narrower = max(_width(line, size, bold) for line in lines) - 1
        closer = _fill(words, narrower, size, bold)
        if len(closer) > len(lines) or _widest(words, size, bold) > narrower:
            break
        lines = closer
    return lines


def _fill(words: list[str], width: float, size: int, bold: bool) -> list[str]:
    lines: list[str] = []
    for piece in (piece for word in words for piece in _break(word, width, size, bold)):
        if lines and _width(f"{lines[-1]} {piece}", size, bold) <= width:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece)
    return lines


def _break(word: str, width: float, size: int, bold: bool) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and _width(pieces[-1] + letter, size, bold) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _widest(words: Sequence[str], size: int, bold: bool = False) -> int:
    return max((_width(word, size, bold) for word in words), default=0)


@cache
def _width(text: str, size: int, bold: bool = False) -> int:
    return -int(-face(size, bold).getlength(text) // 1)
