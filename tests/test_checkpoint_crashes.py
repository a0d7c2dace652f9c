"""Checkpoints where a save does not end: full disks, deaths at each step of it, SIGKILL at random."""

import errno
import functools
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lab import checkpoint
from lab.errors import LabError

LARGE = 800_000  # numbers a tensor: 3.2 MB


def content(step: int, version: int, size: int) -> dict[str, dict[str, Tensor]]:
    """What the checkpoint of a step must hold."""
    values = torch.arange(size, dtype=torch.float32)
    return {"model": {"w": values * step + version}, "ema": {"w": values - step}}


def store(folder: Path, step: int, version: int = 0, size: int = 300, **options: Any) -> Path:
    return checkpoint.save(folder, step, content(step, version, size), {"version": version}, **options)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))


def staging(folder: Path) -> list[Path]:
    return list(folder.glob(".staging-*"))


def assert_sound(found: checkpoint.Checkpoint, size: int = 300) -> None:
    for name, group in content(found.step, found.state["version"], size).items():
        loaded = found.tensors(name)
        assert all(torch.equal(loaded[key], group[key]) for key in group)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_earlier_checkpoints(small_disk: Path) -> None:
    for step in (1, 2):
        store(small_disk, step, size=10_000, keep=9)  # 80 kB each
    with pytest.raises(LabError, match="No space left on device") as caught:
        store(small_disk, 3, size=20_000, keep=9)
    assert str(small_disk / "step_00000003") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert steps(small_disk) == [1, 2]
    assert staging(small_disk) == []
    for step in (1, 2):
        assert_sound(checkpoint.load(small_disk / f"step_{step:08d}"), size=10_000)
    store(small_disk, 3, size=5_000, keep=1)  # the room that the failed save took is free again
    assert steps(small_disk) == [3]


@pytest.mark.parametrize("call", range(1, 6))
def test_no_space_at_any_file(tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, 1)
    left = [call]

    def full(descriptor: int, sync: Callable[[int], None] = os.fsync) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LabError, match=r"step_00000002.*No space left on device"):
            store(tmp_path, 2, keep=1)
    assert (steps(tmp_path), staging(tmp_path)) == ([1], [])
    assert_sound(checkpoint.load(tmp_path / "step_00000001"))


def test_an_interrupt_removes_its_staging_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    store(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store(tmp_path, 2)
    assert (steps(tmp_path), staging(tmp_path)) == ([1], [])


def test_a_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(LabError, match=str(tmp_path / "run")):
        store(tmp_path / "run", 1)


def test_staging_of_the_dead_is_removed_and_of_the_living_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {owner: f".staging-{owner}-step_00000009" for owner in (dead.pid, os.getpid(), os.getppid())}
    for name in [*names.values(), ".staging-notes"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    store(tmp_path, 1)
    assert {path.name for path in staging(tmp_path)} == {names[os.getppid()], ".staging-notes"}
    assert steps(tmp_path) == [1]


def die_at_call(number: int, folder: Path, step: int) -> None:
    """Save a second version; leave the world, nothing cleaned up, at the given call that changes the disk."""
    left = [number]

    def mortal(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            os._exit(1)
        return call(*args, **options)

    for name in ("fsync", "rename", "mkdir", "unlink", "rmdir"):
        setattr(os, name, functools.partial(mortal, getattr(os, name)))
    store(folder, step, version=1, keep=1)
    os._exit(0)


@pytest.mark.parametrize("again", [False, True], ids=["new step", "same step again"])
def test_death_at_every_step_of_a_save(tmp_path: Path, again: bool, caplog: pytest.LogCaptureFixture) -> None:
    """With one checkpoint only, there is a sound one at every instant: the old one, and then the new one."""
    target = 5 if again else 6
    versions = []
    for number in range(100):
        folder = tmp_path / str(number)
        store(folder, 5, version=0)
        child = multiprocessing.get_context("fork").Process(target=die_at_call, args=(number, folder, target))
        child.start()
        child.join()
        for path in folder.glob("step_*"):
            checkpoint.verify(path)  # none is half written or half deleted
        found = checkpoint.latest(folder)
        assert found is not None
        assert_sound(found)
        versions.append(found.state["version"])
        assert versions == sorted(versions)
        store(folder, target, version=2, keep=1)
        assert [path.name for path in folder.iterdir()] == [f"step_{target:08d}"]
        if child.exitcode == 0:
            break
    assert child.exitcode == 0
    assert set(versions) == {0, 1}
    assert not caplog.records  # none was damaged on the way


def save_for_ever(folder: Path, advance: int, report: Connection) -> None:
    """What a training does, without the training: resume, save, tell the parent, save the next."""
    torch.set_num_threads(1)  # a fork has none of its parent's threads
    found = checkpoint.latest(folder)
    step, version = (1, 0) if found is None else (found.step + advance, found.state["version"] + 1)
    while True:
        store(folder, step, version, LARGE, keep=2)
        report.send(version)
        step, version = step + advance, version + 1


def newest_version(report: Connection) -> int:
    """The last version that the child reported as saved, -1 if none."""
    version = -1
    try:
        while report.poll():
            version = report.recv()
    except EOFError:  # the child is dead and all is read
        pass
    return version


@pytest.mark.slow
@pytest.mark.parametrize(("advance", "kills"), [(1, 50), (0, 25)], ids=["new steps", "same step"])
def test_sigkill(tmp_path: Path, advance: int, kills: int, caplog: pytest.LogCaptureFixture) -> None:
    """After each kill the newest whose rename was done loads, and holds what its step must hold."""
    context = multiprocessing.get_context("fork")  # torch is loaded already: 50 starts take seconds
    moments = random.Random(0)
    acknowledged, amid = -1, 0
    for _ in range(kills):
        parent, child_end = context.Pipe(duplex=False)
        child = context.Process(target=save_for_ever, args=(tmp_path, advance, child_end), daemon=True)
        child.start()
        child_end.close()
        parent.poll(60)  # the first save is done, or (a later one) the time is up
        time.sleep(moments.uniform(0.0, 0.15))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        acknowledged = max(acknowledged, newest_version(parent))
        parent.close()
        amid += bool(staging(tmp_path))
        with caplog.at_level(logging.WARNING):
            found = checkpoint.latest(tmp_path)
        assert found is not None
        assert not caplog.records
        places = sorted(tmp_path.glob("step_*"), key=lambda path: (path.name[:13], path.suffix != ".old"))
        assert found.path == places[-1]
        assert found.state["version"] - acknowledged in (0, 1)  # killed between the rename and the report: 1
        assert found.step == 1 + advance * found.state["version"]
        assert_sound(found, LARGE)
    assert amid > kills // 2  # most kills did hit a save
    last = store(tmp_path, 1000, 0, LARGE, keep=1)
    assert list(tmp_path.iterdir()) == [last]
