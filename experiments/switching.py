"""Pictures whose condition changes on the way: many that join one way down, each at a level of its own."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm.auto import tqdm

from experiments.subjects import Subjects, ask
from lab import LabError
from lab.conditioning import Condition
from lab.diffusion import Guidance
from lab.editing import invert, renoise
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import from_uint8, to_uint8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pairs:
    """From what to what, a row each."""

    source: Subjects
    target: Subjects

    @property
    def names(self) -> list[str]:
        """E.g. "rose to sunflower"."""
        return [f"{a} to {b}" for a, b in zip(self.source.names, self.target.names, strict=True)]

    @property
    def facts(self) -> dict[str, Any]:
        """What tells them from others."""
        return {"pairs": self.names, "phrases": [self.source.phrases, self.target.phrases]}


def pairs_of(model: DiffusionModel, cfg: DictConfig) -> Pairs:
    """What is asked for; the targets, where none are named, are the sources moved on by one."""
    source = ask(model, cfg.classes, cfg.prompts, count=3)
    if cfg.then_classes is None and cfg.then_prompts is None:
        if len(source) < 2:
            raise LabError("then_classes: name what the picture turns to, as many as classes or prompts")
        target = source.moved(by=1)
    else:
        target = ask(model, cfg.then_classes, cfg.then_prompts)
    if len(source) != len(target):
        raise LabError(f"then_classes: {len(target)} to turn to from {len(source)}; name one for each")
    if cfg.images is not None and len(cfg.images) != len(source):
        raise LabError(f"images: {len(cfg.images)} files for {len(source)} classes or prompts; name one for each")
    return Pairs(source, target)


def own_levels(model: DiffusionModel, cfg: DictConfig, source: Condition) -> Tensor:
    """(S + 1, B, C, h, w): what each evaluation starts from on the way to samples of B conditions, and last these."""
    settings: dict[str, Any] = {"num_inference_steps": cfg.num_inference_steps, "spacing": cfg.spacing}
    states = list(model.states(source, seed=cfg.seed, sampler="ddim", guidance=guidance_of(model, cfg), **settings))
    return torch.stack([*(state.x_t for state in states), states[-1].x_next])


def levels_of(model: DiffusionModel, cfg: DictConfig, way: str, source: Condition, given: Tensor) -> Tensor:
    """(S + 1, B, C, h, w): what evaluation k starts from when given pictures (B, 3, H, W) are inverted or renoised."""
    settings: dict[str, Any] = {"num_inference_steps": cfg.num_inference_steps, "spacing": cfg.spacing}
    if way == "renoise":  # by other noise than a sample of the run's own came from
        others = range(len(given), 2 * len(given))
        return renoise(model, given, source, start_step=0, seed=cfg.seed, numbers=others, **settings).x
    found = invert(model, given, source, fixed_point_iterations=cfg.fixed_point_iterations, **settings)
    logger.info("inverted; PSNR of the way back: %s dB", ", ".join(f"{one:.1f}" for one in found.psnr.tolist()))
    return found.x


def guidance_of(model: DiffusionModel, cfg: DictConfig) -> Guidance:
    """As configured, else the run's own."""
    scale = model.sampling.guidance_scale if cfg.guidance_scale is None else cfg.guidance_scale
    interval = model.sampling.guidance_interval if cfg.guidance_interval is None else tuple(cfg.guidance_interval)
    return Guidance(scale, model.sampling.rescale_phi, interval, model.sampling.guidance_parallel)


def transfer(
    model: DiffusionModel, cfg: DictConfig, pairs: Pairs, steps: Sequence[int], given: Tensor | None, parts: Parts
) -> Tensor:
    """(K, W, B, 3, H, W) in [-1, 1]: K steps, W ways, B pairs; given (B, 3, H, W): pictures to start from."""
    settings = {"guidance": guidance_of(model, cfg), "spacing": cfg.spacing}
    source, targets = (
        side.condition.chosen(cfg.seed, range(len(pairs.names))) for side in (pairs.source, pairs.target)
    )
    own = cache(lambda: own_levels(model, cfg, source))

    @cache
    def levels(way: str) -> Tensor:
        if way == "switch":
            return own()
        there = model.autoencoder.decode(own()[-1]).clamp(-1, 1) if given is None else given
        return levels_of(model, cfg, way, source, there)

    @torch.inference_mode()
    def one(way: str, number: int) -> dict[str, Tensor]:
        target = targets[number : number + 1]
        made = join(model, levels(way)[:, number], steps, target, cfg.batch_size, **settings)
        return {"images": torch.from_numpy(to_uint8(made))}

    asked = [(way, number) for way in cfg.ways for number in range(len(pairs.names))]
    found = [
        parts.get(f"{way}_{number}", lambda way=way, number=number: one(way, number))["images"]  # type: ignore[misc]
        for way, number in tqdm(asked, desc="pictures", leave=False, disable=None)
    ]
    whole = from_uint8(torch.stack(found)).transpose(0, 1)  # (K, W * B, 3, H, W)
    return whole.reshape(len(steps), len(cfg.ways), len(pairs.names), *whole.shape[2:])


@torch.inference_mode()
def join(
    model: DiffusionModel,
    levels: Tensor,
    steps: Sequence[int],
    condition: Condition,
    batch_size: int | None = None,
    **settings: Any,
) -> Tensor:
    """Pictures (K, 3, H, W) in [-1, 1] that begin at levels[k], for each k of `steps`, and come down together by DDIM.

    levels (S + 1, C, h, w): what evaluation k starts from, and last the picture itself, which step S gives unchanged;
    condition: one row, for all; settings: of `DiffusionModel.states`. From one step to the next the batch holds those
    that have begun, so that K joining S steps at even distances cost half of K whole ways.
    """
    last, at_a_time = len(levels) - 1, batch_size or model.sampling.batch_size
    order = sorted(set(steps))
    x = levels[:0].to(model.device)
    for step, following in pairwise([*(step for step in order if step < last), last]):
        x = torch.cat([x, levels[step : step + 1].to(x)])
        x = torch.cat([_down(model, part, step, following, last, condition, settings) for part in x.split(at_a_time)])
    x = torch.cat([x, levels[last:].to(x)]) if last in order else x
    pictures = torch.cat([model.autoencoder.decode(part).clamp(-1, 1).cpu() for part in x.split(at_a_time)])
    return pictures[[order.index(step) for step in steps]]


def _down(
    model: DiffusionModel,
    x: Tensor,
    step: int,
    following: int,
    last: int,
    condition: Condition,
    settings: Mapping[str, Any],
) -> Tensor:
    """x (B, C, h, w) from the level of evaluation `step` to that of `following`."""
    rows = condition.map(lambda part: part.expand(len(x), *part.shape[1:]))
    states = model.states(rows, latents=x, start_step=step, sampler="ddim", num_inference_steps=last, **settings)
    for state in islice(states, following - step):
        x = state.x_next
    return x
