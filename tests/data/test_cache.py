import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.data import cache
from lab.errors import LabError

SQUARES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)


class Rows:
    """Rows that count how often they were made."""

    def __init__(self, *rows: np.ndarray | LabError) -> None:
        self.rows = rows
        self.made = 0

    def __call__(self) -> Iterator[np.ndarray | LabError]:
        self.made += 1
        yield from self.rows


def test_pixels_are_built_once_and_read_after(tmp_path: Path) -> None:
    rows = Rows(*SQUARES)
    for _ in range(2):
        pixels, skipped = cache.load_or_build(tmp_path, "set", 4, rows)
        assert np.array_equal(pixels.numpy(), SQUARES)
        assert skipped == {}
    assert rows.made == 1


def test_writing_to_the_pixels_does_not_reach_the_file(tmp_path: Path) -> None:
    pixels, _ = cache.load_or_build(tmp_path, "set", 4, Rows(*SQUARES))
    pixels.zero_()
    again, _ = cache.load_or_build(tmp_path, "set", 4, Rows())
    assert np.array_equal(again.numpy(), SQUARES)


def test_errors_are_left_out_and_remembered(tmp_path: Path) -> None:
    rows = Rows(SQUARES[0], LabError("b.jpg: an empty file"), SQUARES[2])
    for _ in range(2):
        pixels, skipped = cache.load_or_build(tmp_path, "set", 4, rows)
        assert np.array_equal(pixels.numpy(), SQUARES[[0, 2]])
        assert skipped == {1: "b.jpg: an empty file"}
    assert rows.made == 1


def test_a_set_without_a_sound_row_is_empty(tmp_path: Path) -> None:
    pixels, skipped = cache.load_or_build(tmp_path, "set", 4, Rows(LabError("x")))
    assert pixels.shape == (0, 4, 4, 3)
    assert pixels.dtype == torch.uint8
    assert skipped == {0: "x"}


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "longer",
        "no note",
        "no pixels",
        "note is no JSON",
        "note is a list",
        "note lacks a key",
        "note of another size",
    ],
)
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, damage: str) -> None:
    cache.load_or_build(tmp_path, "set", 4, Rows(*SQUARES))
    data, note = tmp_path / "set.bin", tmp_path / "set.json"
    content = json.loads(note.read_text())
    match damage:
        case "truncated":
            data.write_bytes(data.read_bytes()[:-1])
        case "longer":
            data.write_bytes(data.read_bytes() + b"x")
        case "no note":
            note.unlink()
        case "no pixels":
            data.unlink()
        case "note is no JSON":
            note.write_text("{")
        case "note is a list":
            note.write_text("[]")
        case "note lacks a key":
            note.write_text(json.dumps({k: v for k, v in content.items() if k != "skipped"}))
        case "note of another size":
            note.write_text(json.dumps(content | {"side": 8}))
    rows = Rows(*SQUARES)
    pixels, _ = cache.load_or_build(tmp_path, "set", 4, rows)
    assert rows.made == 1
    assert np.array_equal(pixels.numpy(), SQUARES)


def test_failed_builds_leave_nothing_and_the_next_succeeds(tmp_path: Path) -> None:
    def fail() -> Iterator[np.ndarray]:
        yield SQUARES[0]
        raise LabError("c.jpg: no image")

    with pytest.raises(LabError, match=r"c\.jpg"):
        cache.load_or_build(tmp_path, "set", 4, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["set.lock"]
    assert len(cache.load_or_build(tmp_path, "set", 4, Rows(*SQUARES)).pixels) == 5


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LabError, match=r"no space left.*data\.cache_dir") as caught:
        cache.load_or_build(tmp_path, "set", 4, Rows(*SQUARES))
    assert str(tmp_path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["set.lock"]


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"cannot write.*data\.cache_dir"):
        cache.load_or_build(tmp_path / "file" / "cache", "set", 4, Rows(*SQUARES))


def test_what_a_dead_process_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "set.bin.123.partial").write_bytes(b"half")
    cache.load_or_build(tmp_path, "set", 4, Rows(*SQUARES))
    assert not list(tmp_path.glob("*.partial"))


BUILD_SLOWLY = """
import sys, time
from pathlib import Path
import numpy as np
from lab.data import cache
folder = Path(sys.argv[1])
def rows():
    with (folder / "builds").open("a") as file:
        file.write("built\\n")
    for i in range(5):
        time.sleep(0.2)
        yield np.full((4, 4, 3), i, np.uint8)
print(cache.load_or_build(folder, "set", 4, rows).pixels.sum().item())
"""


@pytest.mark.slow
def test_two_processes_build_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD_SLOWLY, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [int(process.communicate(timeout=300)[0]) for process in both] == [480, 480]
    assert (tmp_path / "builds").read_text() == "built\n"
