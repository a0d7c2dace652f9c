"""What was seen elsewhere is compared with what is measured, where it is."""

from experiments.expected import Expected, compared

VALUES = [-10.0, 0.0, 1.0, 10.0]
MEASURED = {"saturation": [0.2, 0.4, 0.5, 0.4]}
CALLED = {"saturation": "saturation of the pictures"}


def test_a_row_says_what_is_measured_and_whether_it_agrees() -> None:
    seen = [
        Expected("crushed at -10", "saturation", -10, False, 1),
        Expected("saturated at 10", "saturation", 10, True, 1),
        Expected("grey at 0", "saturation", 0, False, 10),  # which is equal here
    ]
    rows = compared(seen, VALUES, MEASURED, CALLED)
    assert [row["as there?"] for row in rows] == ["yes", "no", "no difference"]
    assert rows[0]["here"] == "0.2 at -10, 0.5 at 1" and rows[0]["measured by"] == "saturation of the pictures"
    assert rows[0]["elsewhere"] == "crushed at -10"


def test_what_was_not_measured_is_left_out() -> None:
    assert compared([Expected("sharp", "edge_energy", 10, True, 0)], VALUES, MEASURED, CALLED) == []
    assert compared([Expected("far", "saturation", 20, True, 0)], VALUES, MEASURED, CALLED) == []
    assert compared([Expected("one", "saturation", 0.9, True, 1)], VALUES, MEASURED, CALLED) == []  # the same place


def test_values_nearby_serve() -> None:
    rows = compared([Expected("saturated", "saturation", 9.5, True, -9.5)], VALUES, MEASURED, CALLED)
    assert rows[0]["here"] == "0.4 at 10, 0.2 at -10"
