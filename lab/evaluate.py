"""What is it worth? python -m lab.evaluate run=results/class_cond: numbers, each beside what real pictures get.

Samples of all classes in turn are compared with the training set in the space of a classifier that the lab trained
from zero (the judge), whose own accuracy on held-out pictures is always told. Stopped, it goes on from what it has;
`accelerate launch -m lab.evaluate ...` shares the samples among processes. Of a run that trained an autoencoder, a CLIP
or a judge, its figures on all held-out pictures; what is asked of samples does not matter there.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

import lab
from lab import checkpoint
from lab.cli import entry_point
from lab.clip import Clip
from lab.clip.captions import class_prompts
from lab.commands import command_line
from lab.conditioning import ClipConditioner
from lab.config import check_types
from lab.data import ImageSet
from lab.device import Precision, local_device, this_process
from lab.diffusion.guidance import check_interval
from lab.errors import LabError
from lab.evaluation import FeatureSpace, clip_space, inception_space, judge_space, timm_space
from lab.evaluation.agreement import (
    COLOUR_PROMPTS,
    Similarity,
    chance_of,
    factors_of_classes,
    factors_recovered,
    share_of,
)
from lab.evaluation.cas import classification_accuracy
from lab.evaluation.drawing import draw, estimate, sampled
from lab.evaluation.held_out import held_out_figures
from lab.evaluation.report import RESULT, about, pairs, sections, table
from lab.evaluation.worth import Worth, check_reference, floor_pictures, worth
from lab.evaluators import OWN, clip_of, judge_of
from lab.judging import Judge
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import from_uint8, page, save_image, to_uint8
from lab.render.provenance import write_whole
from lab.runs import check_run, pictures_of, read_config

logger = logging.getLogger(__name__)
SETTINGS = ("guidance_scale", "guidance_interval", "num_inference_steps", "sampler", "spacing", "seed", "batch_size")
LEAST = {"n": 10, "num_inference_steps": 1, "suspicious": 1, "batch_size": 1, "cas_steps": 0, "colour_count": 0}
TYPES: dict[str, Any] = {
    "precision": Precision,
    **dict.fromkeys(("n", "num_inference_steps", "seed", "suspicious"), int),
    "guidance_scale": float | None,
    "guidance_interval": Sequence[float] | None,
    "batch_size": int | None,
    **dict.fromkeys(("cas_steps", "colour_count"), int),
    **dict.fromkeys(("sampler", "space"), str),
    **dict.fromkeys(("run", "spacing", "judge", "device", "out", "data.root", "data.cache_dir"), str | None),
}


def check(cfg: DictConfig) -> None:
    """LabError for a run or judge that is none, and for numbers that cannot be."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    for key, least in LEAST.items():
        if cfg[key] is not None and cfg[key] < least:
            raise LabError(f"{key}={cfg[key]}: use at least {least}")
    if cfg.guidance_interval is not None:
        check_interval("guidance_interval", cfg.guidance_interval)
    if cfg.space not in ("judge", "clip", "inception") and not cfg.space.startswith("timm/"):
        raise LabError(f"space={cfg.space}: use judge, clip, inception or timm/NAME")


def judge_for(cfg: DictConfig, train: ImageSet) -> Judge:
    """The judge that is named, else the reference one; LabError unless it knows the classes of the run's data."""
    judge = judge_of(train.class_names, cfg.judge)
    if judge is None:
        advice = "python -m lab.train +experiment=judge with the run's data trains one"
        raise LabError(f"judge=...: none is kept that knows the classes of {train.name}; {advice}")
    return judge


def space_of(cfg: DictConfig, judge: Judge, model: DiffusionModel) -> FeatureSpace:
    """Where pictures are compared; LabError where its weights cannot be had."""
    if cfg.space == "clip":
        clip = clip_of(model, cfg.run)
        if clip is None:
            raise LabError("space=clip: no CLIP knows this run's data; use space=judge")
        return clip_space(clip)
    if cfg.space == "inception":
        return inception_space(model.device)
    return judge_space(judge) if cfg.space == "judge" else timm_space(cfg.space.removeprefix("timm/"), model.device)


@entry_point("evaluate", check)
def main(cfg: DictConfig) -> None:
    """Sample, compare, and write JSON, a sheet of possible copies and a page."""
    processes = this_process()
    if read_config(cfg.run).task != "diffusion":
        if processes.is_main_process:
            on_held_out(cfg)
        return
    if cfg.cas_steps and processes.num_processes > 1:
        advice = "share the samples with cas_steps=0 first, and start the same alone then"
        raise LabError(f"cas_steps={cfg.cas_steps}: classifiers are trained by one process; {advice}")
    model = lab.load(cfg.run, cfg.device or str(local_device()), precision=cfg.precision)
    train, held_out = (pictures_of(cfg.run, split, cfg.data) for split in ("train", "held_out"))  # type: ignore[arg-type]
    check_reference(cfg.n, len(train))
    if cfg.cas_steps and not getattr(model.conditioner, "class_names", ()):
        raise LabError(f"cas_steps={cfg.cas_steps}: this run knows no classes, which a classifier would learn; use 0")
    judge = judge_for(cfg, train).to(model.device)
    clip, space = clip_of(model, cfg.run), space_of(cfg, judge, model)
    asked: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(SETTINGS)))
    asked["guidance_scale"] = model.sampling.guidance_scale if cfg.guidance_scale is None else cfg.guidance_scale
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "evaluation" / f"{asked['guidance_scale']:g}"
    given = {key: value for key, value in asked.items() if value is not None}
    facts = {**model.provenance, **vars(model.sampling), **given, "n": cfg.n}
    if processes.is_main_process:
        minutes = estimate(model, cfg.n, asked) / 60 / processes.num_processes
        logger.info("%d samples: about %.0f minutes", cfg.n, minutes)
    pixels, labels = draw(model, cfg.n, asked, Parts(folder, facts))
    parts = Parts(folder / "colours", {**facts, "prompts": COLOUR_PROMPTS, "count": cfg.colour_count})
    coloured = colours_shown(model, cfg.colour_count, asked, parts)
    if not processes.is_main_process:
        return  # the rest is one process's work
    found, audit = worth(pixels, labels, train, held_out, judge, space, cfg.seed)
    known = (held_out.view(torch.arange(len(held_out))), held_out.labels)  # which no evaluator has seen
    sides = {"generated": (from_uint8(pixels), labels), "real": known}
    for side, pictures in sides.items():
        found = found.plus(side, **names_met(clip, *pictures, train.class_names))
    found = found.plus("generated", **coloured)
    if cfg.cas_steps:
        shared = Path(cfg.data.cache_dir or read_config(cfg.run).data.cache_dir) / "cas"
        found = with_cas(found, cfg.cas_steps, (pixels, labels), train, held_out, folder, shared)
    save_image(pairs(pixels, train, audit, min(cfg.suspicious, cfg.n)), folder / "copies.png", facts)
    facts |= {"clip": clip and f"{clip.name} {clip.fingerprint}"}
    facts |= {"colour_count": cfg.colour_count, "cas_steps": cfg.cas_steps}
    write_report(cfg, folder, facts, found, known_factors(judge, sides, train))


def on_held_out(cfg: DictConfig) -> None:
    """What an autoencoder, a CLIP or a judge does with held-out pictures, as JSON and on the screen."""
    run, pictures = Path(cfg.run), pictures_of(cfg.run, "held_out", cfg.data)  # type: ignore[arg-type]
    found = held_out_figures(run, pictures, cfg.device or local_device())
    saved = None if read_config(run).task in OWN else checkpoint.latest(run / "checkpoints")
    told = {"run": cfg.run, "step": saved and saved.step, "n": len(pictures), "data": pictures.fingerprint}
    folder = Path(cfg.out) if cfg.out is not None else run / "evaluation" / "held_out"
    _write_json(folder / RESULT, {**told, "held_out": found})
    figures = ", ".join(f"{name} {figure:.4g}" for name, figure in found.items())
    logger.info("%s of %d held-out pictures; in %s", figures, len(pictures), folder / RESULT)


def write_report(
    cfg: DictConfig, folder: Path, facts: Mapping[str, Any], found: Worth, factors: Mapping[str, Mapping[str, float]]
) -> None:
    """The numbers as JSON, on the screen, and on a page."""
    _write_json(folder / RESULT, {**facts, **found.facts(), "factors": factors})
    logger.info("%s", "\n".join(f"{row['measure']:<16} {_text(row)}" for row in table(found)))
    logger.info(about(found))
    page(
        folder / "index.html", "What is it worth?", sections(found, factors, folder, command_line("lab.evaluate", cfg))
    )
    logger.info("open %s", folder / "index.html")


def _write_json(path: Path, told: Mapping[str, Any]) -> None:
    write_whole(path, lambda staged: staged.write_text(json.dumps(told, indent=2, default=str) + "\n"))


def with_cas(
    found: Worth,
    steps: int,
    samples: tuple[torch.Tensor, torch.Tensor],
    train: ImageSet,
    held_out: ImageSet,
    folder: Path,
    shared: Path,
) -> Worth:
    """The same with what classifiers learn from the samples, and from the real pictures of the floor, alone.

    That of the real pictures lies in `shared`, since it is the same for all runs and guidance scales.
    """
    floor, _ = floor_pictures(train, found.n, found.seed)
    real = (torch.from_numpy(to_uint8(train.view(floor))), train.labels[floor])
    for side, (pixels, labels), root in (("generated", samples, folder), ("real", real, shared)):
        scores = classification_accuracy(pixels, labels, held_out, root, steps, found.seed)
        found = found.plus(side, **{f"cas_{name}": share for name, share in scores.items()})
    return found


def names_met(
    clip: Clip | None, images: torch.Tensor, classes: torch.Tensor, class_names: Sequence[str]
) -> dict[str, float]:
    """{"clip_similarity"} of pictures with the names of their classes; {} without classes or CLIP."""
    if clip is None or bool((classes < 0).any()):
        return {}
    similarity = Similarity(clip, [class_prompts(name) for name in class_names])
    return {"clip_similarity": float(similarity(images, classes).mean())}


def colours_shown(model: DiffusionModel, count: int, settings: Mapping[str, Any], parts: Parts) -> dict[str, float]:
    """{"colour_accuracy"} of `count` samples of each colour prompt; {} for a run that takes no prompts."""
    if not isinstance(model.conditioner, ClipConditioner) or count == 0:
        return {}
    which = torch.arange(len(COLOUR_PROMPTS)).repeat_interleave(count)
    condition = model.condition(list(COLOUR_PROMPTS.values()))
    pixels = sampled(model, condition, which, range(len(which)), settings, parts)
    shares = [share_of(colour, some) for colour, some in zip(COLOUR_PROMPTS, pixels.split(count), strict=True)]
    return {"colour_accuracy": sum(shares) / len(shares)}


def known_factors(
    judge: Judge, sides: Mapping[str, tuple[torch.Tensor, torch.Tensor]], train: ImageSet
) -> dict[str, dict[str, float]]:
    """By factor of the data's classes, where they are known: the share that is recovered, by side and by chance."""
    factors = factors_of_classes(train) if bool((sides["generated"][1] >= 0).all()) else {}
    found = {side: factors_recovered(judge, images, classes, factors) for side, (images, classes) in sides.items()}
    return {
        factor: {**{side: shares[factor] for side, shares in found.items()}, "chance": chance_of(values)}
        for factor, values in factors.items()
    }


def _text(row: dict[str, Any]) -> str:
    values = list(row.values())[1:]
    return "  ".join("       -" if value is None else f"{value:8.4g}" for value in values)


if __name__ == "__main__":
    main()
