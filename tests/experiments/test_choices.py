"""What may be told in several ways is told in one way throughout a video, a sweep or a walk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from experiments.between import walk
from experiments.denoising import both_ways
from experiments.developing import develop
from experiments.subjects import Subjects
from experiments.sweeps import sweep
from lab.conditioning import Condition
from lab.model import DiffusionModel
from lab.parts import Parts

SEED = 3
SETTINGS: dict[str, Any] = {"seed": SEED, "num_inference_steps": 4, "batch_size": 3}


def denoised(model: DiffusionModel, subjects: Subjects, folder: Path) -> list[Tensor]:
    cfg = {"num_inference_steps": 4, "spacing": None, "guidance_scale": 2.0, "guidance_interval": None, "seed": SEED}
    return list(both_ways(model, subjects, OmegaConf.create(cfg)).pictures.values())


def developed(model: DiffusionModel, subjects: Subjects, folder: Path) -> list[Tensor]:
    return [develop(model, subjects.condition, [0, 1], SETTINGS, Parts(folder, {})).float()]


def walked(model: DiffusionModel, subjects: Subjects, folder: Path) -> list[Tensor]:
    return list(walk(model, subjects.condition, (SEED, 9), 4, 1, SETTINGS, Parts(folder, {})).images.values())


def swept(model: DiffusionModel, subjects: Subjects, folder: Path) -> list[Tensor]:
    return [sweep(model, subjects, "guidance_scale", [0.0, 1.0, 4.0], 1, SETTINGS, Parts(folder, {})).images]


@pytest.mark.parametrize(
    ("made", "numbers"), [(denoised, [0, 1]), (developed, [0, 1]), (walked, [0, 0]), (swept, [0, 0])]
)
def test_frames_are_those_of_the_chosen_condition(
    model: DiffusionModel,
    tmp_path: Path,
    made: Callable[[DiffusionModel, Subjects, Path], list[Tensor]],
    numbers: list[int],
) -> None:
    vector = model.condition(classes=[0, 2]).vector
    several = Condition(vector, choices=vector[:, None] * torch.tensor([[-2.0], [-1], [1], [2], [3]]))
    found, alone, others = (
        made(model, Subjects(["a", "b"], condition, [["a"], ["b"]]), tmp_path / str(number))
        for number, condition in enumerate((several, several.chosen(SEED, numbers), Condition(vector.flip(0))))
    )
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert any(float((one - other).abs().max()) > 1e-2 for one, other in zip(found, others, strict=True))
