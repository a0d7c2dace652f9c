"""A task of one convolution, its runs, and what they leave: shared by the tests of the loop."""

import csv
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.seeding import generator
from lab.training import Task, Trainer, TrainingSettings


class Toy(Task):
    """Learns to blur; everything that matters to the loop, in a millisecond a step."""

    def __init__(self, poison: int | None = None, where: str = "loss") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.out = nn.Conv2d(4, 3, 1)
        self.poison, self.where = poison, where
        self.seen: list[tuple[int, Tensor]] = []  # step and a weight at each preview

    def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        x = torch.randn(8, 3, 6, 6, generator=generator(0, "toy", step))
        return {"x": x, "poison": torch.tensor(step == self.poison)}

    def forward(self, x: Tensor, poison: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        error = (self.out(self.conv(x)) - x[:, :, 1:-1, 1:-1]).square().mean(dim=(1, 2, 3))
        if poison and self.where == "loss":
            error = error * math.nan
        if poison and self.where == "gradient":
            error = error + (error - error.detach()).sqrt()  # 0, of infinite slope
        return {"loss": error, "largest": error.detach().max()}

    def epoch(self, step: int) -> float:
        return step / 4

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        assert not self.training
        self.seen.append((step, self.conv.weight.detach().clone()))
        return {"looked": float(step)}

    def culprits(self, step: int) -> list[tuple[int, str]]:
        return [(step, ""), (100 + step, "7.jpg")]


def settings(**changes: Any) -> TrainingSettings:
    quiet = {"batch_size": 8, "lr": 0.01, "lr_warmup": 2, "ema_decay": 0.9, "precision": "fp32"}
    often = {"log_every": 1, "preview_every": 0, "save_every": 0, "steps": 10}
    return TrainingSettings(**{**quiet, **often, **changes})


def train(run: Path, task: Toy | None = None, **changes: Any) -> Trainer:
    trainer = Trainer(task or Toy(), run, settings(**changes), seed=0)
    trainer.run()
    return trainer


def rows(run: Path) -> list[dict[str, str]]:
    """The log, without the columns that time decides."""
    with (run / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


def steps(run: Path) -> list[int]:
    return [int(row["step"]) for row in rows(run)]


def saved(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").iterdir())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
