"""One knob over many values, everything else equal: the values are a batch, and each is a frame of the video."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from experiments.common import in_pieces
from experiments.subjects import Score, Subjects
from lab import LabError
from lab.diffusion import SamplerState
from lab.model import DiffusionModel
from lab.parts import Part, Parts
from lab.quality import diversity, edge_energy, saturation
from lab.render import from_uint8, grid, to_uint8
from lab.render.moving import MovingCurves, alike, beside

logger = logging.getLogger(__name__)
MEASURES = {  # what can be told of each value, and what the curve is called
    "saturation": "saturation of the pictures (HSV)",
    "clip_fraction": "share of predicted x0 outside ±1",
    "diversity": "distance between seeds (RMS)",
    "edge_energy": "edge energy (RMS)",
    "similarity": "CLIP similarity to what was asked for",
    "accuracy": "share the judge takes for what was asked for",
}
CELL = 128  # px, of a picture in a frame


@dataclass(frozen=True)
class Swept:
    """V values, S subjects, N seeds each, K evaluations of the network."""

    values: list[float]
    images: Tensor  # (V, S, N, 3, H, W) in [-1, 1]
    clip_fraction: Tensor  # (V, S, N) mean over evaluations; NaN for latents
    ratio: Tensor  # (V, S, N, K) r; NaN where one branch was enough
    gain: Tensor  # (V, S, N, K) 1 + phi (r - 1); likewise


def values_of(cfg: DictConfig) -> list[float]:
    """The list that is given, else `points` from first to last; LabError for none, or for what is no number."""
    if cfg.get("values") is not None:
        values = [float(value) for value in cfg["values"]]
        if not values or not all(map(math.isfinite, values)):
            raise LabError(f"values={values}: name at least one finite number")
        return values
    if cfg.points < 1 or not (math.isfinite(cfg.first) and math.isfinite(cfg.last)):
        raise LabError(f"first={cfg.first} last={cfg.last} points={cfg.points}: use finite ends and at least 1 point")
    # Exact where the steps are: 81 points from -10 to 10 hold 0 and 1 themselves.
    return [round(cfg.first + (cfg.last - cfg.first) * i / max(1, cfg.points - 1), 9) for i in range(cfg.points)]


def sweep(
    model: DiffusionModel,
    subjects: Subjects,
    knob: str,
    values: Sequence[float],
    count: int,
    settings: Mapping[str, Any],
    parts: Parts,
) -> Swept:
    """Samples of every subject and `count` seeds at every value of `knob`, from the same noise each.

    settings   of `DiffusionModel.sample`, with `seed` and `batch_size`
    parts      where what is finished is kept
    """
    shape = (len(values), len(subjects), count)
    value, subject, number = (index.flatten() for index in torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    knobs = torch.tensor(values)[value]

    def pieces(chunk: Tensor) -> Part:
        seen = Watching()
        images = model.sample(
            condition=subjects.condition[subject[chunk]],
            numbers=number[chunk].tolist(),
            output="tensor",
            progress=False,
            callback=seen,
            **{**settings, knob: knobs[chunk]},
        )
        assert isinstance(images, Tensor)
        return {"images": torch.from_numpy(to_uint8(images)), **seen.facts(len(chunk))}

    found = in_pieces(model, math.prod(shape), settings, parts, pieces, knob)
    whole = {key: torch.cat([part[key] for part in found]) for key in found[0]}
    pictures = from_uint8(whole["images"])
    told = {key: tensor.view(*shape, *tensor.shape[1:]) for key, tensor in whole.items() if key != "images"}
    return Swept(list(values), pictures.view(*shape, *pictures.shape[1:]), **told)


class Watching:
    """What a sampler's states tell of each sample on the way."""

    def __init__(self) -> None:
        self.clipped: list[Tensor | None] = []
        self.terms: list[tuple[Tensor, Tensor] | None] = []

    def __call__(self, state: SamplerState) -> None:
        """Take note of one evaluation."""
        self.clipped.append(None if state.clip_fraction is None else state.clip_fraction.float().cpu())
        terms = state.guidance
        self.terms.append(None if terms is None else (terms.ratio.float().cpu(), terms.gain.float().cpu()))

    def facts(self, count: int) -> Part:
        """clip_fraction (B,), ratio (B, K), gain (B, K)."""
        missing = torch.full((count,), math.nan)
        clipped = torch.stack([missing if one is None else one for one in self.clipped])
        pairs = [(missing, missing) if terms is None else terms for terms in self.terms]
        ratio, gain = (torch.stack([pair[side] for pair in pairs], dim=1) for side in (0, 1))
        return {"clip_fraction": clipped.mean(dim=0), "ratio": ratio, "gain": gain}


def measure(swept: Swept, names: Sequence[str], scores: Mapping[str, Score]) -> dict[str, list[float]]:
    """The mean over subjects and seeds of each measure, a number for each value.

    scores   what takes those measures that compare a picture with its subject
    """
    one_by_one: dict[str, Callable[[Tensor], Tensor]] = {"saturation": saturation, "edge_energy": edge_energy}
    subjects, count = swept.images.shape[1:3]
    measured: dict[str, list[float]] = {}
    for name in names:
        if name == "clip_fraction":
            numbers = swept.clip_fraction.mean(dim=(1, 2)).tolist()
        elif name == "diversity":
            numbers = [float(diversity(images).mean()) for images in swept.images]
        elif name in scores:
            which = torch.arange(subjects).repeat_interleave(count)
            numbers = [float(scores[name](images.flatten(0, 1), which).mean()) for images in swept.images]
        else:
            numbers = [float(one_by_one[name](images.flatten(0, 1)).mean()) for images in swept.images]
        measured[name] = numbers
    return measured


def frames(swept: Swept, subjects: Subjects, label: str, panels: Mapping[str, Sequence[float]]) -> list[Image.Image]:
    """For each value the pictures, a column a subject and a row a seed, beside the curves."""
    sheets = alike(
        [
            grid(
                images.transpose(0, 1).flatten(0, 1),
                columns=len(subjects),
                column_labels=subjects.names,
                title=f"{label} = {value:g}",
                cell=CELL,
            )
            for value, images in zip(swept.values, swept.images, strict=True)
        ]
    )
    height = sheets[0].height
    size = (max(480, height), max(height, 150 * len(panels)))
    curves = MovingCurves(swept.values, panels, label, size)
    return [beside(sheet, curves.at(number)) for number, sheet in enumerate(sheets)]


def nearest(values: Sequence[float], wanted: Sequence[float]) -> list[int]:
    """Numbers of the values nearest to those wanted, in order, none twice."""
    return sorted({min(range(len(values)), key=lambda number: abs(values[number] - one)) for one in wanted})


def called_out(swept: Swept, wanted: Sequence[float]) -> list[int]:
    """Those of a sweep's values."""
    return nearest(swept.values, wanted)
