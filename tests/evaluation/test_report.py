"""What an evaluation shows: who is nearest to whom, and numbers under the sides that they are of."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from lab.data import ImageSet
from lab.evaluation import report
from lab.evaluation.memorisation import Audit
from lab.evaluation.report import nearest_table, table
from lab.evaluation.worth import Measures, Worth
from lab.render import from_uint8

AUDIT = Audit(
    distances=torch.tensor([0.5, 0.125, 0.25]),
    neighbours=torch.tensor([1, 3, 0]),
    held_out=torch.tensor([0.4, 0.6]),
    real=torch.tensor([0.3, 0.7]),
    threshold=0.2,
)


def flat(levels: Sequence[int]) -> Tensor:
    """Pixels (N, 4, 4, 3), each picture of one grey."""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3)


TRAIN = ImageSet("grey", flat([10, 20, 30, 40]), torch.zeros(4), ("one",), 4, (), (), "", ("a", "b", "c", "d"))


def test_the_table_of_copies_names_each_samples_nearest_picture() -> None:
    rows = list(
        csv.DictReader(io.StringIO(nearest_table({"judge": AUDIT, "pixels": replace(AUDIT, threshold=0.3)}, TRAIN)))
    )
    told = [tuple(row.values()) for row in rows]
    assert told[:3] == [
        ("judge", "0", "1", "0.5", "0", "b"),
        ("judge", "1", "3", "0.125", "1", "d"),
        ("judge", "2", "0", "0.25", "0", "a"),
    ]
    assert [(row["space"], row["copy"]) for row in rows[3:]] == [("pixels", "0"), ("pixels", "1"), ("pixels", "1")]


def test_the_most_suspicious_are_shown_above_their_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, object] = {}

    def grid(images: Tensor, **texts: object) -> Image.Image:
        drawn.update(texts, images=images)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(report, "grid", grid)
    report.pairs(flat([200, 210, 220]), TRAIN, AUDIT, count=2)
    assert drawn["captions"] == ["1: 0.12", "2: 0.25", "#3", "#0"] and drawn["columns"] == 2
    shown = drawn["images"]
    assert isinstance(shown, Tensor)
    torch.testing.assert_close(shown, from_uint8(flat([210, 220, 40, 10])))


def test_numbers_stand_under_what_they_are_of() -> None:
    sides = [Measures(*[float(first + place) for place in range(13)]) for first in (0, 100, 200)]
    found = Worth(*sides, {}, n=7, held_out_n=5, reference=9, space="small", seed=0)
    rows = table(found.plus("real", cas_top1=0.5))
    assert rows[0] == {"measure": "fid", "generated": 0.0, "real, n = 7": 100.0, "held out, n = 5": 200.0}
    (cas,) = (row for row in rows if row["measure"] == "cas_top1")
    assert list(cas.values()) == ["cas_top1", None, 0.5, None] and math.isnan(found.real.cas_top1)
