"""What the experiments share: numbers that cannot be are refused before anything is computed."""

import importlib
from pathlib import Path

import pytest

from lab.config import compose
from lab.errors import LabError

SAMPLING = ("class_grid", "text_grid", "interpolation", "cfg_sweep", "phi_sweep", "style_transfer")


@pytest.mark.parametrize("name", SAMPLING)
def test_a_batch_of_none_is_refused(name: str, class_run: Path) -> None:
    refused(name, class_run, "batch_size=0", "batch_size=0: use at least 1")


@pytest.mark.parametrize("name", [*SAMPLING, "denoising"])
@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("num_inference_steps=0", "num_inference_steps=0: use at least 1"),
        ("guidance_interval=[0.9,0.2]", r"guidance_interval=\[0\.9, 0\.2\]: use two levels"),
        ("guidance_interval=[0.5]", r"guidance_interval=\[0\.5\]: use two levels"),
        ("fps=0", "fps=0: use more than 0"),
        ("video=avi", "video=avi"),
    ],
)
def test_numbers_that_cannot_be_are_refused(name: str, override: str, says: str, class_run: Path) -> None:
    refused(name, class_run, override, says)


def refused(name: str, run: Path, override: str, says: str) -> None:
    """An experiment's check says so."""
    module = importlib.import_module(f"experiments.{name}")
    with pytest.raises(LabError, match=says):
        module.check(compose(name, [f"run={run}", override]))
