"""Values from a config against annotations: what fits, and what a user is told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from lab.annotations import describe, fits
from lab.diffusion import NoiseSchedule

FITTING: list[tuple[Any, Any]] = [
    (3, int), (3, float), (3.5, float), ("a", str), (True, bool), (None, int | None), (3, int | None),
    ([1, 2], Sequence[int]), ([], Sequence[int]), ([1, 2.5], list[float]), (["a", 1], Sequence[str | int]),
    ([0.9, 1], tuple[float, float]), ([1, 2, 3], tuple[int, ...]), ("error", Literal["error", "skip"]),
    (None, Sequence[str] | None), ({"_target_": "lab.diffusion.NoiseSchedule"}, NoiseSchedule),
    ("anything", Path), (3, "an annotation that is no type"),
]  # fmt: skip
UNFIT: list[tuple[Any, Any, str]] = [
    ("3", int, "int"), (3.0, int, "int"), (True, int, "int"), (1, bool, "bool"), (True, float, "float"),
    (None, int, "int"), (5, str, "str"), ("x", int | None, "int or null"), (5, Sequence[int], "a list of int"),
    ("rose", Sequence[str], "a list of str"), (["a"], Sequence[int], "a list of int"),
    ([1, {"_target_": "os.system"}], Sequence[int], "a list of int"), ([0.9], tuple[float, float], "a list of 2 float"),
    (5, tuple[float, float], "a list of 2 float"), ("x", Literal["error", "skip"], "error or skip"),
    ("cosine", NoiseSchedule, "NoiseSchedule"), ("a", Sequence[str | int] | None, "a list of str or int or null"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "annotation"), FITTING)
def test_what_fits(value: Any, annotation: Any) -> None:
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation", "told"), UNFIT)
def test_what_does_not_fit(value: Any, annotation: Any, told: str) -> None:
    assert not fits(value, annotation)
    assert describe(annotation) == told
