"""The dot is on the curve, at the value of its frame."""

import math

import numpy as np
import pytest
from PIL import Image, ImageChops

from lab.render.moving import MovingCurves, alike, beside

X = [0.0, 1, 2, 3, 4]


def added(curves: MovingCurves, index: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what `at` adds to the plain curves."""
    box = ImageChops.difference(curves.at(index), curves.plain).getbbox()
    assert box is not None
    return box


def dot(curves: MovingCurves, index: int) -> tuple[float, float]:
    """Middle of the rows and columns that are wider than the line."""
    changed = np.asarray(ImageChops.difference(curves.at(index), curves.plain)).any(axis=2)
    rows = np.flatnonzero(changed.sum(axis=1) > 3)
    columns = np.flatnonzero(changed.any(axis=0))
    return float(columns.mean()), float(rows.mean())


def test_dots_move_evenly_along_a_straight_curve() -> None:
    curves = MovingCurves(X, {"rising": [0.0, 1, 2, 3, 4]}, "value", (300, 200))
    places = np.array([dot(curves, i) for i in range(5)])
    right, up = np.diff(places[:, 0]), -np.diff(places[:, 1])
    assert right == pytest.approx(right.mean() * np.ones(4), abs=2) and right.mean() > 40
    assert up == pytest.approx(up.mean() * np.ones(4), abs=2) and up.mean() > 20


def test_panels_share_the_line_and_a_gap_has_no_dot() -> None:
    curves = MovingCurves(X, {"one": [0.0, 1, 0, 1, 0], "two": [0.0, math.nan, 1, 1, 1]}, "value", (300, 300))
    assert curves.plain.size == (300, 300)
    left, top, right, bottom = added(curves, 2)
    assert right - left < 20 and bottom - top > 200
    assert len(curves._dots[1]) == 1 and len(curves._dots[2]) == 2


def test_one_value_is_drawn_too() -> None:
    assert MovingCurves([3.0], {"one": [1.0]}, "value", (200, 150)).at(0).size == (200, 150)


def test_pictures_stand_beside_each_other_on_white() -> None:
    sheet = beside(Image.new("RGB", (4, 6), "#ff0000"), Image.new("RGB", (3, 2), "#0000ff"))
    assert sheet.size == (7, 6)
    assert [sheet.getpixel(place) for place in ((0, 5), (5, 1), (5, 5))] == [(255, 0, 0), (0, 0, 255), (255, 255, 255)]


def test_pictures_become_alike_by_white_at_the_right_and_bottom() -> None:
    one, other = alike([Image.new("RGB", (4, 2), "#ff0000"), Image.new("RGB", (3, 5), "#0000ff")])
    assert one.size == other.size == (4, 5)
    assert one.getpixel((3, 1)) == (255, 0, 0) and one.getpixel((0, 4)) == (255, 255, 255)
    assert other.getpixel((2, 4)) == (0, 0, 255) and other.getpixel((3, 0)) == (255, 255, 255)
