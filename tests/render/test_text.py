"""Text is measured before it is drawn: lines within their width, letters whole, sizes chosen to fit."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lab.render.text import COMFORTABLE, SMALL, WIDEST_WORD, Block, fit, fit_beside, wrap

PROMPT = "a red flower with five pointed petals and a yellow centre indeed"
NAMES = [
    "rose",
    "bishop of llandaff",
    "canterbury bells",
    "hard-leaved pocket orchid",
    "prince of wales feathers",
]


@pytest.mark.parametrize("width", [40, 90, 200, 2000])
def test_wrapped_lines_keep_every_word_and_the_width(width: int) -> None:
    block = wrap(PROMPT, width, size=12)
    assert block.width <= width
    if width >= 90:
        assert " ".join(block.lines) == PROMPT


def test_a_short_text_is_one_line_and_an_empty_one_takes_no_room() -> None:
    assert wrap("rose", 200, size=12).lines == ("rose",)
    assert (wrap("", 200, size=12).width, wrap("", 200, size=12).height) == (0, 0)


def test_lines_are_about_equally_long() -> None:
    lines = wrap("one two three four five six", 110, size=13).lines
    assert len(lines) == 2
    assert min(map(len, lines)) > 0.6 * max(map(len, lines))


def test_line_breaks_in_the_text_stay() -> None:
    assert wrap("s = 2\nφ = 0.7", 500, size=12).lines == ("s = 2", "φ = 0.7")


def test_a_word_wider_than_the_column_is_broken_without_losing_a_letter() -> None:
    word = "Donaudampfschifffahrtsgesellschaft"
    block = wrap(f"die {word}", 60, size=12)
    assert block.width <= 60
    assert "".join(block.lines).replace(" ", "") == f"die{word}"


def test_the_measured_box_holds_all_ink() -> None:
    block = wrap("jÅgpq ÄÖÜ bishop of llandaff", 90, size=13)
    sheet = Image.new("L", (block.width + 40, block.height + 40), 255)
    block.draw(ImageDraw.Draw(sheet), 20, 20, fill="black")
    rows, columns = np.nonzero(np.asarray(sheet) < 255)
    assert rows.min() >= 20
    assert rows.max() < 20 + block.height
    assert columns.min() >= 19  # antialiasing may touch the neighbouring pixel
    assert columns.max() <= 20 + block.width


def test_class_names_fit_a_cell_in_a_comfortable_common_size() -> None:
    blocks = fit(NAMES, 128)
    assert {block.size for block in blocks} == {COMFORTABLE[0]}
    assert all(block.width <= 128 and len(block.lines) <= 3 for block in blocks)


def test_narrow_columns_take_smaller_letters_and_then_grow_rather_than_break_words() -> None:
    blocks = fit(NAMES, 32)
    assert {block.size for block in blocks} == {SMALL[-1]}
    assert 32 < max(block.width for block in blocks) <= WIDEST_WORD
    assert [" ".join(block.lines) for block in blocks] == NAMES


@pytest.mark.parametrize("height", [36, 128])
def test_labels_beside_a_row_stay_within_its_height(height: int) -> None:
    blocks = fit_beside([PROMPT, "rose"], height)
    assert all(block.height <= height for block in blocks)
    assert [" ".join(block.lines) for block in blocks] == [PROMPT, "rose"]


def test_short_labels_get_a_narrow_column() -> None:
    assert max(block.width for block in fit_beside(["s = 0", "s = 10"], height=64)) < 60


def test_line_height_grows_with_the_size() -> None:
    assert Block(("a",), 17).line_height > Block(("a",), 9).line_height
