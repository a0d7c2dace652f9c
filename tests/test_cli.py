"""What the entry points share: exit codes, one line for a mistake, nothing left behind, sweeps."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

import lab.train
from lab.cli import entry_point, one_line_errors
from lab.errors import LabError

Command = Callable[..., tuple[int, str]]


def fails_with(error: BaseException) -> Callable[[DictConfig], None]:
    def main(cfg: DictConfig) -> None:
        raise error

    return main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error: ")]


def left(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_the_function_gets_the_configuration(run_command: Command, tmp_path: Path) -> None:
    seen: list[DictConfig] = []
    assert run_command(entry_point("train")(seen.append), "seed=7") == (0, "")
    assert seen[0].seed == 7
    assert (tmp_path / "results" / "custom").is_dir()


def test_overrides_may_stand_before_the_users(run_command: Command) -> None:
    seen: list[DictConfig] = []
    command = entry_point("train", first=["seed=3", "training.steps=5"])(seen.append)
    for _ in range(2):
        assert run_command(command, "seed=7") == (0, "")
    assert [(cfg.seed, cfg.training.steps) for cfg in seen] == [(7, 5)] * 2


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LabError("data.root=x: not\n  there"), "error: data.root=x: not there"),
        (OSError(28, "No space left on device", "log.csv"), "error: log.csv: No space left on device"),
        (OSError("the disk is gone"), "error: the disk is gone"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    run_command: Command, tmp_path: Path, error: Exception, told: str
) -> None:
    code, said = run_command(entry_point("train")(fails_with(error)))
    assert (code, said.splitlines()) == (2, [told])
    assert left(tmp_path) == []


def test_what_is_no_mistake_of_the_user_keeps_its_traceback(run_command: Command) -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(entry_point("train")(fails_with(ZeroDivisionError())))


def test_the_check_comes_before_anything_is_made(run_command: Command, tmp_path: Path) -> None:
    there: list[bool] = []

    def check(cfg: DictConfig) -> None:
        there.append((tmp_path / "results").exists())
        raise LabError("seed=0: no")

    assert run_command(entry_point("train", check)(fails_with(AssertionError()))) == (2, "error: seed=0: no\n")
    assert there == [False]
    assert left(tmp_path) == []


def test_folders_that_hold_something_stay(run_command: Command, tmp_path: Path) -> None:
    (tmp_path / "results" / "other").mkdir(parents=True)
    assert run_command(entry_point("train")(fails_with(LabError("no"))))[0] == 2
    assert left(tmp_path / "results") == [tmp_path / "results" / "other"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").write_text("step\n")
    run_command(entry_point("train")(fails_with(LabError("no"))), "hydra.run.dir=run")
    assert (tmp_path / "run" / "log.csv").exists()


def test_a_folder_that_was_there_stays_though_it_is_empty(run_command: Command, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    overrides = [f"hydra.run.dir={tmp_path / 'runs' / 'a' / 'b'}"]
    assert run_command(entry_point("train")(fails_with(LabError("no"))), *overrides)[0] == 2
    assert left(tmp_path) == [tmp_path / "runs"]
    assert left(tmp_path / "runs") == []


def test_what_ctrl_c_interrupts_ends_as_shells_expect(run_command: Command, tmp_path: Path) -> None:
    assert run_command(entry_point("train")(fails_with(KeyboardInterrupt()))) == (130, "interrupted\n")
    assert left(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(run_command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = run_command(entry_point("train")(lambda cfg: None), "hydra.run.dir=file/run")
    assert code == 2
    assert len(lines(said)) == 1
    assert str(Path("file") / "run") in said


def test_one_line_errors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise LabError("key=1: no")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: key=1: no\n"


def test_messages_of_the_lab_are_seen_and_those_of_others_are_not(run_command: Command) -> None:
    def main(cfg: DictConfig) -> None:
        logging.getLogger("lab.some").info("step 1")
        logging.getLogger("other").info("chatter")
        logging.getLogger("other").warning("careful")

    assert run_command(entry_point("train")(main)) == (0, "step 1\ncareful\n")


# -- sweeps ------------------------------------------------------------------------------------------


def test_a_sweep_is_a_run_for_each_value(run_command: Command, tiny_settings: tuple[str, ...], tmp_path: Path) -> None:
    values = ["conditioning=unconditional", "training.steps=2", "training.lr=1e-3,1e-4", "hydra.sweep.dir=sweep"]
    code, said = run_command(lab.train.main, "-m", *tiny_settings, *values, "hydra.sweep.subdir=${training.lr}")
    assert code == 0, said
    for lr in ("0.001", "0.0001"):
        assert (tmp_path / "sweep" / lr / "checkpoints" / "step_00000002").is_dir()
    assert "0.0001" in (tmp_path / "sweep" / "0.0001" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.stpes=1,2", "training.stpes: no such key; did you mean training.steps?"),
        ("training.steps=0,1", "training.steps=0: use at least 1"),
        ("data=petal,folder", "data=petal: no such option; did you mean petals?"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_line_too(run_command: Command, override: str, told: str) -> None:
    code, said = run_command(lab.train.main, "-m", override)
    assert code == 2
    assert len(lines(said)) == 1
    assert told in said
    assert "Traceback" not in said


def test_help_is_help(run_command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run_command(lab.train.main, "--help")
    assert code == 0
    assert "conditioning" in capsys.readouterr().out
