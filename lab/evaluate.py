"""What is it worth? python -m lab.evaluate run=results/class_cond: numbers, each beside what real pictures get.

Samples of all classes in turn are compared with the training set in the space of a classifier that the lab trained
from zero (the judge), whose own accuracy on held-out pictures is always told. Stopped, it goes on from what it has;
`accelerate launch -m lab.evaluate ...` shares the samples among processes.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import lab
from lab.cli import entry_point
from lab.config import check_types
from lab.critics import clip_of, judge_of
from lab.data import ImageSet
from lab.device import local_device, this_process
from lab.errors import LabError
from lab.evaluation import Audit, FeatureSpace, clip_space, inception_space, judge_space, timm_space
from lab.evaluation.cas import classification_accuracy
from lab.evaluation.drawing import draw, estimate
from lab.evaluation.worth import Worth, check_reference, floor_pictures, worth
from lab.judging import Judge
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import Section, from_uint8, grid, page, save_image, to_uint8
from lab.render.provenance import write_whole
from lab.runs import check_run, pictures_of

logger = logging.getLogger(__name__)
SETTINGS = ("guidance_scale", "guidance_interval", "num_inference_steps", "sampler", "spacing", "seed", "batch_size")
RESULT = "evaluation.json"
TYPES: dict[str, Any] = {
    **dict.fromkeys(("n", "num_inference_steps", "seed", "suspicious"), int),
    "guidance_scale": float | None,
    "guidance_interval": Sequence[float] | None,
    "batch_size": int | None,
    "cas_steps": int,
    **dict.fromkeys(("sampler", "space"), str),
    **dict.fromkeys(("run", "spacing", "judge", "device", "out", "data.root", "data.cache_dir"), str | None),
}


def check(cfg: DictConfig) -> None:
    """LabError for a run or judge that is none, and for numbers that cannot be."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    for key, least in (("n", 10), ("num_inference_steps", 1), ("suspicious", 1), ("cas_steps", 0)):
        if cfg[key] < least:
            raise LabError(f"{key}={cfg[key]}: use at least {least}")
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


def pairs(pixels: torch.Tensor, train: ImageSet, audit: Audit, count: int) -> Image.Image:
    """The samples nearest to a training picture, each above it. It holds pictures of the data set."""
    chosen = audit.suspicious(count)
    samples, neighbours = from_uint8(pixels[chosen]), train.view(audit.neighbours[chosen])
    columns = min(8, len(chosen))
    rows = [part for pair in zip(samples.split(columns), neighbours.split(columns), strict=True) for part in pair]
    captions = [f"{float(distance):.2f}" for distance in audit.distances[chosen]]
    texts = [text for part in range(0, len(captions), columns) for text in
             [*captions[part : part + columns], *[""] * len(captions[part : part + columns])]]  # fmt: skip
    return grid(torch.cat(rows), captions=texts, columns=columns, title="samples, and below each its nearest", cell=64)


def table(found: Worth) -> list[dict[str, Any]]:
    """A row a measure: generated, real at the same n."""
    generated, real = (found.facts()[side] for side in ("generated", "real"))
    return [
        {"measure": name, "generated": value, f"real, n = {found.n}": real[name]} for name, value in generated.items()
    ]


@entry_point("evaluate", check)
def main(cfg: DictConfig) -> None:
    """Sample, compare, and write JSON, a sheet of possible copies and a page."""
    model, processes = lab.load(cfg.run, cfg.device or str(local_device())), this_process()
    train, held_out = (pictures_of(cfg.run, split, cfg.data) for split in ("train", "held_out"))  # type: ignore[arg-type]
    check_reference(cfg.n, len(train))
    if cfg.cas_steps and not getattr(model.conditioner, "class_names", ()):
        raise LabError(f"cas_steps={cfg.cas_steps}: this run knows no classes, which a classifier would learn; use 0")
    judge = judge_for(cfg, train).to(model.device)
    space = space_of(cfg, judge, model)
    asked: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(SETTINGS)))
    asked["guidance_scale"] = model.sampling.guidance_scale if cfg.guidance_scale is None else cfg.guidance_scale
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "evaluation" / f"{asked['guidance_scale']:g}"
    facts = {**model.provenance, **vars(model.sampling), **asked, "n": cfg.n}
    if processes.is_main_process:
        minutes = estimate(model, cfg.n, asked) / 60 / processes.num_processes
        logger.info("%d samples: about %.0f minutes", cfg.n, minutes)
    pixels, labels = draw(model, cfg.n, asked, Parts(folder, facts))
    learned = what_is_learned(cfg, pixels, labels, train, held_out, folder) if cfg.cas_steps else {}
    if not processes.is_main_process:
        return  # the rest is one process's work
    found, audit = worth(pixels, labels, train, held_out, judge, space, cfg.seed)
    sides = {side: replace(getattr(found, side), **scores) for side, scores in learned.items()}
    found = replace(found, **sides)
    told = {**facts, **found.facts()}
    write_whole(folder / RESULT, lambda staged: staged.write_text(json.dumps(told, indent=2, default=str) + "\n"))
    save_image(pairs(pixels, train, audit, min(cfg.suspicious, cfg.n)), folder / "copies.png", facts)
    logger.info("%s", "\n".join(f"{row['measure']:<12} {_text(row)}" for row in table(found)))
    logger.info(about(found))
    page(folder / "index.html", "What is it worth?", sections(found, cfg, folder, asked["guidance_scale"]))
    logger.info("open %s", folder / "index.html")


def what_is_learned(
    cfg: DictConfig, pixels: torch.Tensor, labels: torch.Tensor, train: ImageSet, held_out: ImageSet, folder: Path
) -> dict[str, dict[str, float]]:
    """What classifiers learn from the samples, and from the real pictures of the floor, alone: cas_top1, cas_top5."""
    floor, _ = floor_pictures(train, cfg.n, cfg.seed)
    real = torch.from_numpy(to_uint8(train.view(floor)))
    sides = {"generated": (pixels, labels), "real": (real, train.labels[floor])}
    learned = {}
    for side, (shown, asked) in sides.items():
        scores = classification_accuracy(shown, asked, held_out, folder / f"cas_{side}", cfg.cas_steps, cfg.seed)
        learned[side] = {"cas_top1": scores["top1"], "cas_top5": scores["top5"]}
    return learned


def about(found: Worth) -> str:
    """What must be known to read the numbers."""
    judge = (
        f"The judge is right about {found.judge['top1']:.1%} of held-out pictures, and has the class among its first "
    )
    space = f"five for {found.judge['top5']:.1%}. Space: {found.space}. "
    counts = f"{found.n} samples and {found.n} real pictures, each against the same {found.reference} others; "
    return f"{judge}{space}{counts}seed {found.seed}."


def sections(found: Worth, cfg: DictConfig, folder: Path, guidance_scale: float) -> list[Section]:
    """The page: numbers, and possible copies."""
    command = f"python -m lab.evaluate run={cfg.run} guidance_scale={guidance_scale:g}"
    copies = (
        f"{found.generated.copies:.1%} of the samples are nearer to a training picture than all but 1 % of held-out "
        "ones are; the nearest are shown. The sheet holds pictures of the data set."
    )
    sheet = (folder / "copies.png", "samples, and below each the nearest training picture")
    return [
        Section("Numbers", about(found), table=table(found), command=command),
        Section("Copies?", copies, images=[sheet]),
    ]


def _text(row: dict[str, Any]) -> str:
    values = list(row.values())[1:]
    return "  ".join("       -" if value is None else f"{value:8.4g}" for value in values)


if __name__ == "__main__":
    main()
