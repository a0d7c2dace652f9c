"""The knobs of the loop: what they mean, and which values cannot be."""

import math
from typing import Any

import pytest

import lab.training.settings
from lab.errors import LabError
from lab.training import TrainingSettings


def test_the_learning_rate_warms_up_and_stays() -> None:
    settings = TrainingSettings(steps=1000, lr=0.5, lr_warmup=4)
    assert [settings.lr_at(step) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    assert settings.lr_at(999) == 0.5
    assert [settings.lr_at(step, started=700) for step in (700, 703, 704)] == pytest.approx([0.1, 0.4, 0.5])
    assert TrainingSettings(lr=0.5, lr_warmup=0).lr_at(0) == 0.5


def test_the_learning_rate_decays_along_a_cosine() -> None:
    settings = TrainingSettings(steps=100, lr=2.0, lr_warmup=0, lr_decay=True)
    assert [settings.lr_at(step) for step in (0, 25, 50, 75)] == pytest.approx(
        [2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)]
    )
    assert 0 < settings.lr_at(99) < 0.001


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation": 0}, {"accumulation": 3},
        {"steps": 0}, {"steps": -5}, {"batch_size": 0}, {"keep": 0}, {"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan},
        {"lr": math.inf}, {"lr_warmup": -1}, {"log_every": -1}, {"preview_every": -1}, {"save_every": -1},
        {"weight_decay": -0.1}, {"weight_decay": math.nan}, {"grad_clip": -1.0}, {"ema_decay": 1.0},
        {"ema_decay": -0.1}, {"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"precision": "fp16"},
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_named(changes: dict[str, Any]) -> None:
    (key,) = changes
    with pytest.raises(LabError, match=rf"^training\.{key}=.*: (use|must)") as error:
        TrainingSettings(**changes)
    assert "\n" not in str(error.value)


def test_intervals_may_be_off_and_a_config_may_give_lists() -> None:
    settings = TrainingSettings(log_every=0, preview_every=0, save_every=0, grad_clip=0.0, betas=[0.8, 0.9])  # type: ignore[arg-type]
    assert settings.betas == (0.8, 0.9)


def test_a_tracker_that_is_unknown_or_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match=r"training\.trackers=\['tensorbord'\]: use some of .*tensorboard"):
        TrainingSettings(trackers=("tensorbord",))
    monkeypatch.setattr(lab.training.settings, "get_available_trackers", lambda: [])
    with pytest.raises(LabError, match="pip install tensorboard"):
        TrainingSettings(trackers=("tensorboard",))
