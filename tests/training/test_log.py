"""The log of a run: exact numbers, and whole rows whatever happens to the process or the disk."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.training.log import TrainingLog, read_rows


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_until_it_fails(log: TrainingLog) -> None:
    for step in range(1, 1000):
        log.write({"step": step, "loss": 0.5})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of steps 2, 4, 6 and 8."""
    path = tmp_path / "run" / "log.csv"
    log = TrainingLog(path)
    for step in (2, 4, 6, 8):
        log.write({"step": step, "loss": step / 7})
    return path


def test_numbers_keep_all_their_digits(path: Path) -> None:
    assert [float(row["loss"]) for row in rows_of(path)] == [2 / 7, 4 / 7, 6 / 7, 8 / 7]
    assert [row["step"] for row in rows_of(path)] == ["2", "4", "6", "8"]
    assert read_rows(path) == rows_of(path)


def test_each_row_is_on_disk_when_it_is_written(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.csv")
    assert not log.path.exists()
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 0.5})
        assert len(rows_of(log.path)) == step


@pytest.mark.parametrize(("step", "left"), [(0, []), (1, []), (4, [2, 4]), (5, [2, 4]), (8, [2, 4, 6, 8])])
def test_a_resumed_run_cuts_what_it_will_do_again(path: Path, step: int, left: list[int]) -> None:
    log = TrainingLog(path, step)
    assert [int(row["step"]) for row in read_rows(path)] == left
    log.write({"step": 9, "loss": 0.25})
    assert [int(row["step"]) for row in rows_of(path)] == [*left, 9]


def test_a_log_that_goes_on_is_the_log_of_one_go(path: Path, tmp_path: Path) -> None:
    TrainingLog(path, 4)
    log = TrainingLog(path, 4)
    for step in (6, 8):
        log.write({"step": step, "loss": step / 7})
    whole = TrainingLog(tmp_path / "whole.csv")
    for step in (2, 4, 6, 8):
        whole.write({"step": step, "loss": step / 7})
    assert path.read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_half_written_last_line_is_left_out(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    assert [int(row["step"]) for row in read_rows(path)] == [2, 4, 6]
    TrainingLog(path, 8).write({"step": 8, "loss": 8 / 7})
    assert [row["step"] for row in rows_of(path)] == ["2", "4", "6", "8"]


def test_a_half_written_header_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,lo")
    assert read_rows(tmp_path / "log.csv") == []
    assert read_rows(tmp_path / "nowhere.csv") == []
    TrainingLog(tmp_path / "log.csv", 3).write({"step": 4, "loss": 1.0})
    assert rows_of(tmp_path / "log.csv") == [{"step": "4", "loss": "1.0"}]


def test_a_number_that_comes_later_gets_a_column(path: Path) -> None:
    log = TrainingLog(path, 8)
    log.write({"step": 10, "loss": 0.5, "sample_std": 0.25})
    log.write({"step": 12, "loss": 0.5})
    assert [row["sample_std"] for row in rows_of(path)] == ["", "", "", "", "0.25", ""]
    again = TrainingLog(path, 10)
    again.write({"step": 12, "loss": 0.5, "sample_std": 0.125})
    assert [row["sample_std"] for row in rows_of(path)] == ["", "", "", "", "0.25", "0.125"]


@pytest.mark.parametrize("text", ["name,price\nrose,3\n", "step,loss\nthree,0.5\n", "step,loss\n1.5,0.5\n"])
def test_another_file_in_its_place_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(LabError, match=r"log\.csv: is not a training log; move it away"):
        TrainingLog(path, 5)
    assert path.read_text() == text


def test_a_full_disk_is_named_and_the_rows_so_far_stay(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(16)
    log = TrainingLog(disk / "log.csv")
    log.write({"step": 0, "loss": 0.5})
    with (disk / "other").open("wb") as other, pytest.raises(OSError, match="No space left"):
        other.write(bytes(100_000))
    with pytest.raises(LabError, match=r"log\.csv: cannot be written \(No space left on device\)"):
        write_until_it_fails(log)
    kept = read_rows(disk / "log.csv")
    assert [int(row["step"]) for row in kept] == list(range(len(kept)))
    assert len(kept) > 100
    with pytest.raises(LabError, match="cannot be written"):
        log.write({"step": 5000, "loss": 0.5, "new": 1.0})  # a rewrite of the whole file
    assert read_rows(disk / "log.csv") == kept
    (disk / "other").unlink()
    TrainingLog(disk / "log.csv", 100).write({"step": 101, "loss": 0.5})
    assert len(read_rows(disk / "log.csv")) == 102
