"""Every image on the sheet whole, every text clear of every other thing."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lab.render import grid
from lab.render.grid import MARGIN

PROMPTS = [f"a {colour} flower with five pointed petals and a yellow centre in grass" for colour in ("red", "blue")]


def colours(count: int, height: int = 16, width: int = 16) -> torch.Tensor:
    """(count, 3, height, width): plain images of distinct colours that grey text never has."""
    levels = torch.tensor([[60.0 + index, 250.0 - index, 10.0] for index in range(count)])
    return (levels / 127.5 - 1).reshape(count, 3, 1, 1).expand(count, 3, height, width)


def boxes(sheet: Image.Image, count: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of each plain image; fails where one is cut, covered or drawn over."""
    codes = np.asarray(sheet) @ np.array([1 << 16, 1 << 8, 1])  # (H, W): one number a colour
    found = []
    for index in range(count):
        rows, columns = np.nonzero(codes == ((60 + index) << 16) + ((250 - index) << 8) + 10)
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert len(rows) == (right - left) * (bottom - top), f"image {index} is covered"
        found.append((int(left), int(top), int(right), int(bottom)))
    return found


def ink(sheet: Image.Image) -> NDArray[np.bool_]:
    """(H, W): where there is text, which alone is grey."""
    pixels = np.asarray(sheet).astype(int)
    return (np.ptp(pixels, axis=-1) == 0) & (pixels[..., 0] < 250)


def assert_neighbours_are_apart(sheet: Image.Image, row: list[tuple[int, int, int, int]]) -> None:
    for (_, _, right, _), (left, *_) in pairwise(row):
        middle = (right + left) // 2
        assert not ink(sheet)[:, middle - 1 : middle + 1].any(), "texts of neighbours touch"


def assert_margin_is_clear(sheet: Image.Image) -> None:
    pixels = np.asarray(sheet) == 255
    edge = MARGIN - 2  # antialiasing
    assert pixels[:edge].all()
    assert pixels[-edge:].all()
    assert pixels[:, :edge].all()
    assert pixels[:, -edge:].all()


def test_102_long_names_lie_clear_of_images_and_of_each_other() -> None:
    names = ["bishop of llandaff", "canterbury bells", "hard-leaved pocket orchid"] * 34
    sheet = grid(colours(102), names, columns=12, cell=64)
    places = boxes(sheet, 102)
    assert len({left for left, *_ in places}) == 12
    assert len({top for _, top, *_ in places}) == 9
    assert_neighbours_are_apart(sheet, places[:12])
    assert_margin_is_clear(sheet)


def test_images_narrower_than_their_names_move_apart() -> None:
    sheet = grid(colours(4), ["canterbury"] * 4, columns=4, column_labels=["hippeastrum"] * 4, cell=16)
    assert_neighbours_are_apart(sheet, boxes(sheet, 4))
    assert_margin_is_clear(sheet)


def test_row_and_column_labels_and_captions_together() -> None:
    sheet = grid(
        colours(6),
        captions=["s = 2\nφ = 0.7"] * 6,
        row_labels=PROMPTS,
        column_labels=["guidance scale -10", "0", "10"],
        title="A sweep",
        cell=96,
    )
    places = boxes(sheet, 6)
    assert len({left for left, *_ in places}) == 3  # two rows of labels imply three columns
    text = ink(sheet)
    left, top, _, bottom = places[0]
    assert text[top:bottom, :left].any()  # row label beside its image
    assert text[:top, left:].any()  # column labels above
    assert text[bottom : places[3][1], left:].any()  # captions below
    assert not text[top:bottom, left:].any()  # and nothing between the images
    assert_margin_is_clear(sheet)


def test_a_label_higher_than_its_image_pushes_the_rows_apart() -> None:
    sheet = grid(colours(2), row_labels=[" ".join(PROMPTS)] * 2, cell=16)
    (_, first, _, _), (_, second, _, _) = boxes(sheet, 2)
    assert second - first > 3 * 16
    assert_margin_is_clear(sheet)


def test_one_image_without_text_is_that_image_and_a_margin() -> None:
    sheet = grid(colours(1), cell=32)
    assert sheet.size == (32 + 2 * MARGIN, 32 + 2 * MARGIN)
    assert boxes(sheet, 1) == [(MARGIN, MARGIN, MARGIN + 32, MARGIN + 32)]


def test_a_title_longer_than_the_sheet_is_wrapped_not_cut() -> None:
    sheet = grid(colours(1), title="a title that is very much longer than the one small image is wide", cell=16)
    assert_margin_is_clear(sheet)
    boxes(sheet, 1)


def test_seven_images_in_three_columns_leave_two_blanks() -> None:
    places = boxes(grid(colours(7), columns=3), 7)
    assert len({top for _, top, *_ in places}) == 3
    assert places[6][0] == places[0][0]


@pytest.mark.parametrize(("height", "width"), [(16, 32), (32, 16)])
def test_images_that_are_not_square_keep_their_shape(height: int, width: int) -> None:
    for left, top, right, bottom in boxes(grid(colours(6, height, width), ["poppy"] * 6, cell=64), 6):
        assert (bottom - top, right - left) == (2 * height, 2 * width)


def test_pictures_of_several_sizes_share_a_sheet() -> None:
    pictures = [Image.new("RGB", (16 + 8 * i, 40 - 8 * i), (60 + i, 250 - i, 10)) for i in range(3)]
    places = boxes(grid(pictures, ["a", "b", "c"], columns=3, cell=40), 3)
    sizes = [(right - left, bottom - top) for left, top, right, bottom in places]
    assert sizes == [(16, 40), (24, 32), (32, 24)]


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (24, 6), (64, 8), (102, 12)])
def test_free_columns_give_a_sheet_of_pleasant_shape(count: int, columns: int) -> None:
    places = boxes(grid(colours(count), cell=16), count)
    assert len({left for left, *_ in places}) == columns


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"captions": ["a"]}, "captions holds 1 texts for 4"),
        ({"row_labels": ["a", "b", "c"], "columns": 2}, "row_labels holds 3 texts for 2"),
        ({"column_labels": ["a"], "columns": 2}, "column_labels holds 1 texts for 2"),
    ],
)
def test_texts_and_images_must_match_in_number(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(colours(4), **wrong)  # type: ignore[arg-type]


def test_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        grid([])
