"""Ratios of contenders that take turns."""

import math

import pytest

from experiments import timing
from experiments.timing import Row, machine, markdown, race


def test_race_reports_the_median_of_the_ratios_of_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    # two calls of each, the second of which tells how many make a turn (ours 4, theirs 1); then ratios 2, 10 and 3
    clock = iter([0.5, 3.0, 4.0, 2.0, 4.0, 10.0, 8.0, 6.0])
    calls = {"ours": 0, "theirs": 0}

    def count(name: str) -> None:
        calls[name] += 1

    def seconds(step: timing.Step) -> float:
        step()
        return next(clock)

    monkeypatch.setattr(timing, "seconds", seconds)
    row = race("x", lambda: count("ours"), "y", lambda: count("theirs"), units=8, rounds=3)
    assert calls == {"ours": 2 + 3 * 4, "theirs": 2 + 3}
    assert row.ratio == 3.0
    assert (row.ours, row.theirs) == (8.0, 8 / 6)
    assert row.spread == "2.00 to 10.00"


def test_the_table_holds_every_row() -> None:
    rows = [Row("a", 2.0, "b", 1.0, 2.0, "1.90 to 2.10"), Row("c", 3.0, "d", 6.0, 0.5, "0.40 to 0.60")]
    lines = markdown(rows).splitlines()
    assert lines[2] == "| a | 2.0 | b | 1.0 | 2.00 | 1.90 to 2.10 |"
    assert len(lines) == 4


def test_facts_name_the_precision_and_memory_is_a_number() -> None:
    assert machine(bf16=False)["precision"] == "fp32"
    assert math.isnan(timing.peak_memory()) or timing.peak_memory() > 0.05
