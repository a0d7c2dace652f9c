"""Samples with every stage of their making: what the network takes the picture for, at each evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from experiments.common import in_pieces
from lab.conditioning import Condition
from lab.diffusion import SamplerState
from lab.model import DiffusionModel
from lab.parts import Part, Parts
from lab.render import from_uint8, grid, to_uint8
from lab.render.moving import alike


def develop(
    model: DiffusionModel, condition: Condition, numbers: Sequence[int], settings: Mapping[str, Any], parts: Parts
) -> Tensor:
    """(K + 1, B, H, W, 3) uint8: the predicted x0 of each of K evaluations, and last the sample.

    condition: B rows; numbers: of the samples, which with settings["seed"] decide their noise; settings: of `sample`.
    """

    def pieces(chunk: Tensor) -> Part:
        stages: list[Tensor] = []

        def keep(state: SamplerState) -> None:
            stages.append(torch.from_numpy(to_uint8(model.autoencoder.decode(state.x0))))

        samples = model.sample(
            condition=condition[chunk],
            numbers=[numbers[int(row)] for row in chunk],
            output="tensor",
            progress=False,
            callback=keep,
            **settings,
        )
        assert isinstance(samples, Tensor)
        return {"stages": torch.stack([*stages, torch.from_numpy(to_uint8(samples))])}

    found = in_pieces(model, len(condition), settings, parts, pieces, "sampling")
    return torch.cat([part["stages"] for part in found], dim=1)


def film(stages: Tensor, **layout: Any) -> list[Image.Image]:
    """A grid for each stage (K + 1, B, H, W, 3), laid out as `grid` is told."""
    last = len(stages) - 1
    titles = [*(f"predicted at evaluation {k + 1} of {last}" for k in range(last)), "the samples"]
    return alike(
        [grid(from_uint8(pixels), title=title, **layout) for pixels, title in zip(stages, titles, strict=True)]
    )
