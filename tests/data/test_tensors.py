"""Tensors kept on disk with a note of what they were made from."""

import logging
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lab.data.tensors import cached
from lab.errors import LabError

ABOUT = {"model": "a"}


class Maker:
    """Counts how often it was asked."""

    def __init__(self, fill: float = 1.0) -> None:
        self.fill, self.times = fill, 0

    def __call__(self) -> Tensor:
        self.times += 1
        return torch.full((2, 3), self.fill)


def test_it_is_made_once(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(2):
        assert torch.equal(cached(tmp_path / "a" / "x.safetensors", ABOUT, (2, 3), make), torch.ones(2, 3))
    assert make.times == 1
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("about", [{"model": "b"}, {"model": "a", "more": "1"}, {}])
def test_what_was_made_from_something_else_is_made_anew(
    tmp_path: Path, about: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.safetensors"
    cached(path, ABOUT, (2, 3), Maker())
    with caplog.at_level(logging.WARNING):
        assert float(cached(path, about, (2, 3), Maker(7.0))[0, 0]) == 7.0
    assert "not what is asked for" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.safetensors"
    cached(path, ABOUT, (2, 3), Maker())
    path.write_bytes(path.read_bytes()[:-4] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert float(cached(path, ABOUT, (2, 3), Maker(7.0))[0, 0]) == 7.0
    assert "damaged" in caplog.text


def test_one_of_many_makes_it(tmp_path: Path) -> None:
    make, got = Maker(), []
    threads = [
        threading.Thread(target=lambda: got.append(cached(tmp_path / "x.safetensors", ABOUT, (2, 3), make)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make.times == 1 and len(got) == 4


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"file.*data\.cache_dir"):
        cached(tmp_path / "file" / "x.safetensors", ABOUT, (2, 3), Maker())
