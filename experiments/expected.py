"""What others saw in such a sweep, beside what is measured in this one: one measure at two values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NEAR = 0.03  # of the sweep's length: how far a value may lie from the one that is meant
ALIKE = 0.02  # of a measure's range over the sweep


@dataclass(frozen=True)
class Expected:
    """A measure that was greater, or smaller, at one value of the sweep than at another."""

    words: str  # what was seen
    measure: str
    at: float
    greater: bool  # than ...
    than_at: float


def compared(
    expected: Sequence[Expected],
    values: Sequence[float],
    measured: Mapping[str, Sequence[float]],
    called: Mapping[str, str],
) -> list[dict[str, str]]:
    """A row each: what was seen, what is measured here, and whether it agrees.

    called   what a measure is called
    A difference below ALIKE of all that the measure varies by is none. What was not measured here, or not near those
    values, is left out.
    """
    rows = []
    for one in expected:
        first, second = (_place(values, value) for value in (one.at, one.than_at))
        if one.measure not in measured or first is None or second is None or first == second:
            continue
        found, other = measured[one.measure][first], measured[one.measure][second]
        whole = max(measured[one.measure]) - min(measured[one.measure])
        more = (found - other if one.greater else other - found) / (whole or 1)
        numbers = f"{found:.3g} at {values[first]:g}, {other:.3g} at {values[second]:g}"
        rows.append(
            {
                "elsewhere": one.words,
                "measured by": called[one.measure],
                "here": numbers,
                "as there?": "no difference" if abs(more) < ALIKE else "yes" if more > 0 else "no",
            }
        )
    return rows


def _place(values: Sequence[float], wanted: float) -> int | None:
    """Number of the value nearest to the one wanted; None where it is not near."""
    nearest = min(range(len(values)), key=lambda number: abs(values[number] - wanted))
    return nearest if abs(values[nearest] - wanted) <= NEAR * (max(values) - min(values)) else None
