"""The log as it was written, resumed, cut off and diverged; the mean without lag at the first fall."""

import math
from pathlib import Path

import matplotlib.style
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lab.errors import LabError
from lab.render import figure_image, loss_curve, read_provenance, style
from lab.render.curves import read_log, running_mean


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


def test_columns_come_back_with_gaps_as_nan(log: Path) -> None:
    columns = read_log(write(log, "step,loss,held_out_loss\n10,0.5,\n20,0.25,0.3\n"))
    assert columns["step"].tolist() == [10, 20]
    assert columns["loss"].tolist() == [0.5, 0.25]
    assert math.isnan(columns["held_out_loss"][0])
    assert columns["held_out_loss"][1] == 0.3


def test_a_step_logged_again_after_a_resume_counts_once(log: Path) -> None:
    columns = read_log(write(log, "step,loss\n10,1\n20,2\n40,3\n20,4\n30,5\n40,6\n"))
    assert columns["step"].tolist() == [10, 20, 30, 40]
    assert columns["loss"].tolist() == [1, 4, 5, 6]


def test_a_last_line_that_was_cut_off_is_left_out(log: Path) -> None:
    assert read_log(write(log, "step,loss,images_per_second\n10,1,9\n20,0."))["step"].tolist() == [10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column step"),
        ("step,time\n1,2\n", "no column loss"),
        ("step,loss\n", "no step has been logged"),
        ("step,loss\n1,2\nx,3\n", "line 3: could not convert string to float"),
        ("step,loss\n1\n2,3\n", "line 2: 1 cells where the header names 2"),
    ],
)
def test_a_log_that_cannot_be_read_says_why(log: Path, text: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        read_log(write(log, text))


def test_a_missing_log_is_one_line(log: Path) -> None:
    with pytest.raises(LabError, match=r"log\.csv: no training log"):
        loss_curve(log, log.with_suffix(".png"))


def test_the_mean_of_a_straight_line_is_that_line() -> None:
    line = np.arange(50.0)
    assert np.allclose(running_mean(line, 4)[:-4], line[:-4])
    assert running_mean(line, 0).tolist() == line.tolist()


def test_the_mean_averages_noise_and_skips_what_is_not_finite() -> None:
    assert running_mean(np.array([0.0, 1.0] * 500), 50)[400] == pytest.approx(0.5, abs=0.01)
    values = np.ones(20)
    values[[3, 12]] = np.nan, np.inf
    mean = running_mean(values, 2)
    assert math.isnan(mean[3])  # alone in its window so near the start
    assert np.allclose(np.delete(mean, 3), 1.0)


@pytest.mark.parametrize("rows", [1, 20, 20000])
def test_a_curve_of_any_length_is_a_picture_with_provenance(log: Path, rows: int) -> None:
    losses = 0.03 + 1 / np.arange(1, rows + 1)
    held_out = ["0.5" if row % 7 == 0 else "" for row in range(rows)]
    lines = [f"{row + 1},{losses[row]:.5f},118.0,{held_out[row]}\n" for row in range(rows)]
    write(log, "step,loss,images_per_second,held_out_loss\n" + "".join(lines))
    out = log.with_name("loss.png")
    loss_curve(log, out)
    assert read_provenance(out) == {"log": "log.csv", "rows": rows, "last_step": rows}
    with Image.open(out) as image:
        assert image.size == (1024, 576)
        pixels = np.asarray(image).reshape(-1, 3)
    assert (pixels == (0, 114, 178)).all(axis=-1).any()  # training
    assert (pixels == (213, 94, 0)).all(axis=-1).any()  # held out


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("losses", [["nan", "nan"], ["1", "nan", "inf"], ["-1", "0", "1"], ["0", "0"]])
def test_a_diverged_or_negative_loss_is_drawn_all_the_same(log: Path, losses: list[str]) -> None:
    write(log, "step,loss\n" + "".join(f"{step},{loss}\n" for step, loss in enumerate(losses, 1)))
    loss_curve(log, log.with_name("loss.png"))
    assert log.with_name("loss.png").exists()


def test_the_style_is_accepted_whole_and_alone_decides(tmp_path: Path) -> None:
    with matplotlib.style.context(style()):
        assert figure_image(Figure()).size == (1024, 576)
    log = write(tmp_path / "log.csv", "step,loss\n1,1\n2,2\n")
    loss_curve(log, tmp_path / "a.png")
    with matplotlib.style.context({"figure.facecolor": "red", "savefig.dpi": 30}):
        loss_curve(log, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
