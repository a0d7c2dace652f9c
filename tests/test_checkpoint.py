"""Checkpoints: exact round trips, every kind of damage, what stays. Crashes have a file of their own."""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lab import checkpoint
from lab.errors import LabError

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool, torch.complex64,
]  # fmt: skip


def content(step: int, version: int = 0, size: int = 300) -> dict[str, dict[str, Tensor]]:
    """What the checkpoint of a step must hold: two files of `size` numbers."""
    values = torch.arange(size, dtype=torch.float32)
    return {"model": {"w": values * step + version}, "ema": {"w": values - step, "n": torch.tensor(version)}}


def store(folder: Path, step: int, version: int = 0, size: int = 300, **options: Any) -> Path:
    return checkpoint.save(folder, step, content(step, version, size), {"version": version}, **options)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))


def staging(folder: Path) -> list[Path]:
    return list(folder.glob(".staging-*"))


def assert_holds(found: checkpoint.Checkpoint | None, step: int, version: int = 0, size: int = 300) -> None:
    assert found is not None
    assert (found.step, found.state) == (step, {"version": version})
    for name, group in content(step, version, size).items():
        loaded = found.tensors(name)
        assert loaded.keys() == group.keys()
        assert all(torch.equal(loaded[key], group[key]) for key in group)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_returns_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    raw = torch.randint(0, 256, (3, 8 * 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    saved = raw > 127 if dtype == torch.bool else raw.view(dtype)
    checkpoint.save(tmp_path, 1, {"a": {"matrix": saved, "scalar": saved[0, 0], "empty": saved[:0]}}, {})
    loaded = checkpoint.load(tmp_path / "step_00000001").tensors("a")
    for key, expected in {"matrix": saved, "scalar": saved[0, 0], "empty": saved[:0]}.items():
        assert (loaded[key].dtype, loaded[key].shape) == (dtype, expected.shape)
        flat = expected.contiguous().reshape(-1)
        assert torch.equal(loaded[key].reshape(-1).view(torch.uint8), flat.view(torch.uint8))


def test_views_tied_and_trained_tensors(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 6))
    tensors = {
        "tied": weight,
        "again": weight,
        "turned": weight.T,
        "row": weight[1],
        "wide": weight[:, :1].expand(4, 9),
    }
    checkpoint.save(tmp_path, 1, {"model": dict(tensors), "none": {}}, {})
    found = checkpoint.load(tmp_path / "step_00000001")
    loaded = found.tensors("model")
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)
    assert not loaded["tied"].requires_grad
    assert found.tensors("none") == {}


def test_state_and_layout(tmp_path: Path) -> None:
    state = {"text": "Ünïcode", "list": [1, 2.5, None, True], "nested": {"lr": 1e-4}}
    path = checkpoint.save(tmp_path / "deep" / "run", 1000, {"model": {}}, state, best=0.5)
    assert path == tmp_path / "deep" / "run" / "step_00001000"
    assert {file.name for file in path.iterdir()} == {"model.safetensors", "state.json", "manifest.json"}
    found = checkpoint.latest(path.parent)
    assert found is not None and found.path == path
    assert found.state == {**state, "best": 0.5}
    assert "best" not in state
    assert found.fingerprint("model") == hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    for read in (found.tensors, found.fingerprint):
        with pytest.raises(LabError, match="holds no 'optimizer'; it holds: model"):
            read("optimizer")


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "step_notes").mkdir()
    (tmp_path / "step_00000007").write_text("a file, no checkpoint")
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "absent") is None
    with pytest.raises(LabError, match="no checkpoint there"):
        checkpoint.load(tmp_path / "step_00000008")


def test_a_copied_checkpoint_may_have_any_name(tmp_path: Path) -> None:
    shutil.move(store(tmp_path, 12), tmp_path / "best")
    assert_holds(checkpoint.load(tmp_path / "best"), 12)


def test_a_state_that_is_not_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "run", 1, {}, {"tensor": torch.zeros(1)})
    assert not (tmp_path / "run").exists()


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "truncated": ("model.safetensors", truncate),
    "emptied": ("ema.safetensors", lambda file: os.truncate(file, 0)),
    "bit flip": ("model.safetensors", lambda file: flip(file, 8 * (file.stat().st_size - 3))),
    "bit flip in the state": ("state.json", lambda file: flip(file, 100)),
    "longer": ("ema.safetensors", lambda file: file.write_bytes(file.read_bytes() + b"0")),
    "missing": ("ema.safetensors", Path.unlink),
    "a folder": ("ema.safetensors", make_folder),
    "no manifest": ("manifest.json", Path.unlink),
    "truncated manifest": ("manifest.json", truncate),
    "binary manifest": ("manifest.json", lambda file: file.write_bytes(bytes(range(256)))),
    "manifest of another kind": (
        "manifest.json",
        lambda file: file.write_text('{"files": {"state.json": 3}}'),
    ),
    "manifest that is a list": ("manifest.json", lambda file: file.write_text("[]")),
    "manifest that lists nothing": ("manifest.json", lambda file: file.write_text('{"files": {}}')),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_falls_back_and_names_the_file(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    name, harm = DAMAGE[kind]
    store(tmp_path, 1)
    harm(store(tmp_path, 2) / name)
    with pytest.raises(checkpoint.CheckpointDamaged, match=re.escape(str(tmp_path / "step_00000002" / name))):
        checkpoint.verify(tmp_path / "step_00000002")
    with caplog.at_level(logging.WARNING):
        assert_holds(checkpoint.latest(tmp_path), 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(tmp_path / "step_00000002" / name) in caplog.text
    shutil.rmtree(tmp_path / "step_00000001")
    with pytest.raises(LabError, match="all 1 checkpoints are damaged") as caught:
        checkpoint.latest(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_single_bit_changes_what_is_loaded(tmp_path: Path) -> None:
    path = store(tmp_path, 3, size=4)
    for file in sorted(path.iterdir()):
        sound = file.read_bytes()
        for bit in range(0, 8 * len(sound), 7):
            flip(file, bit)
            try:
                assert_holds(checkpoint.load(path), 3, size=4)
                assert file.name == "manifest.json"  # JSON has blanks and a second way to write a letter
            except checkpoint.CheckpointDamaged:
                pass
            file.write_bytes(sound)
    assert_holds(checkpoint.load(path), 3, size=4)


def test_a_damaged_one_is_replaced_when_training_comes_by_again(tmp_path: Path) -> None:
    for step in (100, 200):
        store(tmp_path, step)
    truncate(tmp_path / "step_00000200" / "model.safetensors")
    store(tmp_path, 150, keep=1)
    assert steps(tmp_path) == [150, 200]  # the damaged one neither counts as newest nor is older
    assert_holds(checkpoint.latest(tmp_path), 150)
    store(tmp_path, 200, version=7, keep=2)
    assert steps(tmp_path) == [150, 200]
    assert_holds(checkpoint.latest(tmp_path), 200, version=7)


def test_damaged_older_ones_do_not_take_a_place(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        store(tmp_path, step, keep=3)
    truncate(tmp_path / "step_00000003" / "ema.safetensors")
    store(tmp_path, 4, keep=3)
    assert steps(tmp_path) == [1, 2, 4]


def test_what_was_just_saved_stays_beside_later_ones(tmp_path: Path) -> None:
    for step in (300, 100, 110):
        assert_holds(checkpoint.load(store(tmp_path, step, keep=1)), step)
    assert steps(tmp_path) == [110, 300]


@pytest.mark.parametrize(
    ("keep", "keep_best", "expected"),
    [(1, 0, [5]), (2, 0, [4, 5]), (1, 1, [2, 5]), (2, 1, [2, 4, 5]), (1, 3, [2, 3, 5]), (1, 9, [1, 2, 3, 5])],
)
def test_the_newest_and_the_best_stay(tmp_path: Path, keep: int, keep_best: int, expected: list[int]) -> None:
    for step, best in enumerate([5.0, 1.0, 3.0, float("nan"), 2.0], start=1):
        checkpoint.save(tmp_path, step, {}, {}, keep, best, keep_best)
    assert steps(tmp_path) == expected
    assert staging(tmp_path) == []


def test_the_best_is_found(tmp_path: Path) -> None:
    for step, best in enumerate([3.0, float("nan"), 1.0, None, 2.0], start=1):
        checkpoint.save(tmp_path, step, {}, {}, keep=5, best=best)
    assert checkpoint.best(tmp_path).step == 3
    truncate(tmp_path / "step_00000003" / "state.json")
    assert checkpoint.best(tmp_path).step == 5


@pytest.mark.parametrize("best", [None, float("nan")])
def test_without_a_rating_there_is_no_best(tmp_path: Path, best: float | None) -> None:
    for run in (tmp_path / "empty", store(tmp_path / "run", 1, best=best).parent):
        with pytest.raises(LabError, match="no checkpoint that was rated"):
            checkpoint.best(run)


def test_without_best_only_the_newest_stay(tmp_path: Path) -> None:
    for step in range(5):
        store(tmp_path, step)
    assert steps(tmp_path) == [3, 4]


@pytest.mark.parametrize(("keep", "keep_best"), [(0, 1), (-1, 1), (1, -1)])
def test_something_must_stay(tmp_path: Path, keep: int, keep_best: int) -> None:
    with pytest.raises(LabError, match="keep"):
        store(tmp_path / "run", 1, keep=keep, keep_best=keep_best)
    assert not (tmp_path / "run").exists()
