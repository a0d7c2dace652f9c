"""What is it worth? python -m lab.evaluate run=results/class_cond: numbers, each beside what real pictures get.

Samples of classes as frequent as in training are compared with the training set in the space of a classifier that the
lab trained from zero (the judge), whose own accuracy on held-out pictures is always told. Stopped, it goes on from what
it has; `accelerate launch -m lab.evaluate ...` shares the samples among processes. Of an autoencoder, a CLIP or a judge
its figures on all held-out pictures, an autoencoder's FID in the judge's space among them.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import lab
from lab.cli import entry_point
from lab.commands import command_line
from lab.conditioning.clip import tell_texts_by
from lab.config import check_types, compose
from lab.data import ImageSet
from lab.device import Precision, local_device, this_process, usable
from lab.diffusion.guidance import check_interval
from lab.errors import LabError
from lab.evaluation.agreement import COLOUR_PROMPTS, colours_found, colours_shown, known_factors, names_met
from lab.evaluation.cas import with_cas, with_earlier_cas
from lab.evaluation.drawing import check_classes, draw
from lab.evaluation.held_out import held_out_figures, likeness, weights_of
from lab.evaluation.memorisation import Audit
from lab.evaluation.plan import GUIDANCE, USUAL_N, plan_of, tell_time, usual_n
from lab.evaluation.report import RESULT, about, distances_plot, nearest_table, pairs, sections, table
from lab.evaluation.spaces import judge_space
from lab.evaluation.tools import check_space, judge_for, space_of
from lab.evaluation.worth import Worth, check_reference, encoded_count, floor_pictures, worth
from lab.evaluators import clip_of, judge_of
from lab.render import from_uint8, page, save_image
from lab.render.provenance import write_whole
from lab.runs import check_run, load_autoencoder, pictures_of, read_config
from lab.sampling import check_guided

logger = logging.getLogger(__name__)
ABOUT_HELD_OUT = {"run", "data", "device", "out"}  # what there is to be said of runs that are not sampled from
LEAST = {
    **dict.fromkeys(("n", "cas_n"), 10),
    **dict.fromkeys(("num_inference_steps", "suspicious", "batch_size"), 1),
    **dict.fromkeys(("cas_steps", "colour_count", "neighbours"), 0),
}
TYPES: dict[str, Any] = {
    "precision": Precision,
    **dict.fromkeys(("num_inference_steps", "seed", "suspicious"), int),
    "guidance_scale": float | None,
    "guidance_interval": Sequence[float] | None,
    **dict.fromkeys(("n", "batch_size", "cas_n", "neighbours"), int | None),
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
    check_space(cfg.space)


def evaluate(run: str | Path, **settings: Any) -> dict[str, Any]:
    """What `python -m lab.evaluate run=RUN key=value ...` finds and writes, as in its evaluation.json.

    settings: keys of conf/evaluate.yaml, e.g. guidance_scale=2, n=1020, data={"root": "/path"}. Of several processes
    all but the first get {}. Raises LabError like the command.
    """
    cfg = compose("evaluate", [])
    unknown = [key for key in settings if key not in cfg]
    if unknown:
        raise LabError(f"{unknown[0]}=...: lab.evaluate has no such key; it has {', '.join(map(str, cfg))}")
    given: Any = _as_config(settings)
    if "data" in given and not isinstance(given["data"], dict):
        raise LabError(f'data={settings["data"]}: give a dictionary of its keys, e.g. data={{"root": "/path"}}')
    try:
        asked = OmegaConf.merge(cfg, given | {"run": str(run)})
    except OmegaConfBaseException as error:
        raise LabError(" ".join(str(error).split())) from error
    assert isinstance(asked, DictConfig)
    check(asked)
    return measured(asked) or {}


def _as_config(value: Any) -> Any:
    """What a notebook may give, in types that a config takes."""
    if isinstance(value, Mapping):
        return {str(key): _as_config(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_config(one) for one in value]
    return str(value) if isinstance(value, Path) else value.item() if isinstance(value, np.generic) else value


@entry_point("evaluate", check)
def main(cfg: DictConfig) -> None:
    """Sample, compare, and write JSON, sheets of possible copies and a page."""
    measured(cfg)


def measured(cfg: DictConfig) -> dict[str, Any] | None:
    """What is told of the run, written as well; None in all processes but the first."""
    processes = this_process()
    if read_config(cfg.run).task != "diffusion":
        return on_held_out(cfg) if processes.is_main_process else None
    if cfg.cas_steps and processes.num_processes > 1:
        advice = "share the samples with cas_steps=0 first, and start the same alone then"
        raise LabError(f"cas_steps={cfg.cas_steps}: classifiers are trained by one process; {advice}")
    model = lab.load(cfg.run, cfg.device or str(local_device()), precision=cfg.precision)
    tell_texts_by(model.conditioner, cfg.neighbours)
    check_guided(model.conditioner, {key: cfg[key] for key in GUIDANCE})
    train, held_out = (pictures_of(cfg.run, split, cfg.data) for split in ("train", "held_out"))  # type: ignore[arg-type]
    cfg.n = usual_n(len(train)) if cfg.n is None else cfg.n
    check_reference(cfg.n, len(train), len(held_out))
    check_classes(model, train)
    if cfg.cas_steps and not getattr(model.conditioner, "class_names", ()):
        raise LabError(f"cas_steps={cfg.cas_steps}: this run knows no classes, which a classifier would learn; use 0")
    judge, clip = judge_for(cfg, train, held_out), clip_of(model, cfg.run)
    space = space_of(cfg, judge and judge.to(model.device), clip, model)
    plan = plan_of(cfg, model, train)
    if processes.is_main_process:
        sampling = plan.seconds(model) / processes.num_processes
        encoding = space.seconds(held_out.view(torch.arange(min(64, len(held_out)))))
        tell_time(cfg, plan, sampling, encoding * encoded_count(len(train), len(held_out), cfg.n), held_out)
    pixels, labels = draw(model, plan.classes, plan.asked, plan.kept)
    coloured = colours_shown(model, cfg.colour_count, plan.asked, plan.colours)
    if not processes.is_main_process:
        return None  # the rest is one process's work
    found, audits = worth(pixels, labels, train, held_out, judge, space, cfg.seed)
    floor, _ = floor_pictures(train, cfg.n, cfg.seed)
    unseen = held_out.view(torch.arange(len(held_out)))  # which no evaluator has seen
    sides = {
        "generated": (from_uint8(pixels), labels),
        "real": (train.view(floor), plan.classes),
        "held_out": (unseen, held_out.labels),
    }
    for side, (images, classes) in sides.items():
        found = found.plus(side, **names_met(clip, images, classes, train.class_names))
        of_colours = coloured if side == "generated" else colours_found(clip, images, plan.a_colour)
        found = found.plus(side, **of_colours)
    found = replace(found, colour_n=plan.a_colour * len(COLOUR_PROMPTS))
    cas_steps, facts = cfg.cas_steps, {**plan.facts, "data_held_out": held_out.fingerprint}
    if cas_steps:
        shared = Path(cfg.data.cache_dir or read_config(cfg.run).data.cache_dir) / "cas"
        samples = plan.samples_for_cas(model, pixels, labels)
        found = with_cas(
            found, cas_steps, samples, train, held_out, plan.made, shared, bool(read_config(cfg.run).training.flip)
        )
    else:
        found, cas_steps = with_earlier_cas(found, plan.folder / RESULT, facts)
    for name, audit in zip(("copies", "pixel_copies"), audits.values(), strict=True):
        save_image(pairs(pixels, train, audit, min(cfg.suspicious, cfg.n)), plan.folder / f"{name}.png", facts)
    facts |= {"clip": clip and f"{clip.name} {clip.fingerprint}", "judge_weights": judge and judge.fingerprint}
    facts |= {"colour_count": plan.a_colour, "cas_steps": cas_steps, "space_asked": cfg.space}
    factors = known_factors(judge, sides, train) if judge is not None else {}
    return write_report(cfg, plan.folder, facts, found, audits, factors, train)


def on_held_out(cfg: DictConfig) -> dict[str, Any]:
    """What an autoencoder, a CLIP or a judge does with held-out pictures, as JSON and on the screen."""
    usual = compose("evaluate", [])
    of_fid = {"judge", "n", "seed"} if read_config(cfg.run).task == "autoencoder" else set()
    for key in map(str, cfg):
        if key not in ABOUT_HELD_OUT | of_fid and cfg[key] != usual[key]:
            raise LabError(f"{key}={cfg[key]}: it is about samples, and {cfg.run} makes none; leave it out")
    run, pictures = Path(cfg.run), pictures_of(cfg.run, "held_out", cfg.data)  # type: ignore[arg-type]
    device = usable(cfg.device or local_device())
    found = held_out_figures(run, pictures, device)
    if read_config(run).task == "autoencoder":
        train = pictures_of(run, "train", cfg.data)  # type: ignore[arg-type]
        judge = judge_of(train.class_names, cfg.judge)
        if judge is not None:
            _, rest = floor_pictures(train, min(cfg.n or USUAL_N, len(train) // 2), cfg.seed)
            space = judge_space(judge.to(device))
            found |= likeness(load_autoencoder(run, device), pictures, train.view(rest), space)
    facts = {"run": cfg.run, **weights_of(run), "n": len(pictures), "data": pictures.fingerprint}
    told = {**facts, "held_out": found}
    folder = Path(cfg.out) if cfg.out is not None else run / "evaluation" / "held_out"
    _write_json(folder / RESULT, told)
    figures = ", ".join(f"{name} {figure:.4g}" for name, figure in found.items())
    logger.info("%s of %d held-out pictures; in %s", figures, len(pictures), folder / RESULT)
    return told


def write_report(
    cfg: DictConfig,
    folder: Path,
    facts: Mapping[str, Any],
    found: Worth,
    audits: Mapping[str, Audit],
    factors: Mapping[str, Mapping[str, float]],
    train: ImageSet,
) -> dict[str, Any]:
    """The numbers as JSON, on the screen, and on a page."""
    distances = {space: asdict(one.facts()) for space, one in audits.items()}
    told = {**facts, **found.facts(), "nearest": distances, "factors": factors}
    _write_json(folder / RESULT, told)
    write_whole(folder / "nearest.csv", lambda staged: staged.write_text(nearest_table(audits, train)))
    save_image(distances_plot(audits), folder / "distances.png", facts)
    rows = table(found)
    logger.info("%s", "  ".join(rows[0]))
    logger.info("%s", "\n".join(f"{row['measure']:<16} {_text(row)}" for row in rows))
    logger.info(about(found))
    shown = sections(found, audits, factors, folder, command_line("lab.evaluate", cfg))
    page(folder / "index.html", "What is it worth?", shown)
    logger.info("open %s", folder / "index.html")
    return told


def _write_json(path: Path, told: Mapping[str, Any]) -> None:
    write_whole(path, lambda staged: staged.write_text(json.dumps(told, indent=2, default=str) + "\n"))


def _text(row: dict[str, Any]) -> str:
    values = list(row.values())[1:]
    return "  ".join("       -" if value is None else f"{value:8.4g}" for value in values)


if __name__ == "__main__":
    main()
