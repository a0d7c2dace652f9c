"""What was computed once is read again, and what other facts made is not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab import LabError
from lab.parts import Part, Parts, named


def made(value: float) -> Callable[[], Part]:
    return lambda: {"x": torch.full((2, 3), value), "n": torch.tensor([1, 2])}


def never() -> Part:
    raise AssertionError("computed again")


def test_a_piece_is_computed_once(tmp_path: Path) -> None:
    first = Parts(tmp_path, {"seed": 0}).get("a", made(1.5))
    again = Parts(tmp_path, {"seed": 0}).get("a", never)
    assert torch.equal(first["x"], again["x"]) and again["n"].tolist() == [1, 2] and again["n"].dtype == torch.int64


def test_other_facts_make_other_pieces_and_old_ones_go(tmp_path: Path) -> None:
    Parts(tmp_path, {"seed": 0}).get("a", made(1))
    assert float(Parts(tmp_path, {"seed": 1}).get("a", made(2))["x"][0, 0]) == 2
    assert len(list((tmp_path / "parts").iterdir())) == 1
    assert float(Parts(tmp_path, {"seed": 0}).get("a", made(3))["x"][0, 0]) == 3


def test_what_else_lies_there_stays(tmp_path: Path) -> None:
    mine = tmp_path / "parts" / "of_my_thesis" / "chapter.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("important")
    Parts(tmp_path, {"seed": 0}).get("a", made(1))
    Parts(tmp_path, {"seed": 1}).get("a", made(2))
    assert mine.read_text() == "important" and len(list((tmp_path / "parts").iterdir())) == 2


def test_where_a_run_lies_and_how_many_are_made_at_a_time_change_no_piece(tmp_path: Path) -> None:
    first = Parts(tmp_path, {"seed": 0, "run": "results/a", "batch_size": 64}).get("a", made(1.5))
    again = Parts(tmp_path, {"seed": 0, "run": "/somewhere/a", "batch_size": 16}).get("a", never)
    assert torch.equal(first["x"], again["x"])
    assert named("rows", torch.arange(64, 128)) == "rows_000064_000127" != named("rows", torch.arange(64, 80))


def test_a_damaged_piece_is_made_anew(tmp_path: Path) -> None:
    parts = Parts(tmp_path, {})
    parts.get("a", made(1))
    path = next((tmp_path / "parts").rglob("a.safetensors"))
    path.write_bytes(path.read_bytes()[:-5])
    assert float(parts.get("a", made(7))["x"][0, 0]) == 7
    assert float(parts.get("a", never)["x"][0, 0]) == 7


def test_a_full_disk_is_one_line(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(32)
    with pytest.raises(LabError, match=r"a\.safetensors: cannot be written"):
        Parts(folder, {}).get("a", lambda: {"x": torch.zeros(20_000)})
