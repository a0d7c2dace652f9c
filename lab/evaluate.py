"""What is it worth? python -m lab.evaluate run=results/class_cond: numbers, each beside what real pictures get.

Samples of classes as frequent as in training are compared with the training set in the space of a classifier that the
lab trained from zero (the judge), whose own accuracy on held-out pictures is always told. Stopped, it goes on from what
it has; `accelerate launch -m lab.evaluate ...` shares the samples among processes. Of an autoencoder, a CLIP or a judge
its figures on all held-out pictures, an autoencoder's FID in the judge's space among them.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

import lab
from lab.cli import entry_point
from lab.commands import command_line
from lab.conditioning import ClipConditioner
from lab.conditioning.clip import tell_texts_by
from lab.config import check_types, compose
from lab.data import ImageSet
from lab.device import Precision, local_device, this_process, usable
from lab.diffusion.guidance import check_interval
from lab.errors import LabError
from lab.evaluation.agreement import COLOUR_PROMPTS, colours_found, colours_shown, known_factors, names_met
from lab.evaluation.cas import cas_seconds, with_cas, with_earlier_cas
from lab.evaluation.drawing import check_classes, draw, estimate
from lab.evaluation.held_out import held_out_figures, likeness, weights_of
from lab.evaluation.memorisation import Audit
from lab.evaluation.report import RESULT, about, distances_plot, nearest_table, pairs, sections, table
from lab.evaluation.spaces import judge_space
from lab.evaluation.tools import check_space, judge_for, space_of
from lab.evaluation.worth import Worth, check_reference, encoded_count, floor_pictures, worth
from lab.evaluators import clip_of, judge_of
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import from_uint8, page, save_image
from lab.render.provenance import write_whole
from lab.runs import check_run, load_autoencoder, pictures_of, read_config
from lab.sampling import check_guided

logger = logging.getLogger(__name__)
GUIDANCE = ("guidance_scale", "guidance_interval")
SETTINGS = (*GUIDANCE, "num_inference_steps", "sampler", "spacing", "seed", "batch_size")
USUAL_N = 2040
# Each has a folder of its own.
APART = ("n", "num_inference_steps", "sampler", "spacing", "seed", "guidance_interval", "neighbours")
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


@dataclass(frozen=True)
class Plan:
    """Which samples are wanted, how they are made, and where they are kept."""

    made: Path  # the folder of the samples
    folder: Path  # that of what is found of them: in spaces other than the judge's another
    asked: dict[str, Any]  # settings of `DiffusionModel.sample`
    facts: dict[str, Any]  # all that samples depend on
    classes: Tensor  # (N,) that are asked for
    further: Tensor  # (M,) of the samples that CAS takes beyond these
    cas_n: int  # samples of CAS; 0: none
    a_colour: int  # samples of each colour prompt

    @property
    def kept(self) -> Parts:
        return Parts(self.made, self.facts)

    @property
    def colours(self) -> Parts:
        return Parts(self.made / "colours", {**self.facts, "prompts": COLOUR_PROMPTS, "count": self.a_colour})

    @property
    def kept_further(self) -> Parts:
        return Parts(self.made / "cas", {**self.facts, "cas_n": self.cas_n})

    def seconds(self, model: DiffusionModel) -> float:
        """What sampling will take in one process."""
        others = [(self.a_colour * len(COLOUR_PROMPTS), self.colours), (len(self.further), self.kept_further)]
        return estimate(model, self.classes, self.asked, self.kept, others)

    def samples_for_cas(self, model: DiffusionModel, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and classes of `cas_n` samples: of these, which are numbers 0 to N, and of further ones."""
        if len(self.further):
            more = draw(model, self.further, self.asked, self.kept_further, first=len(labels))
            pixels, labels = torch.cat([pixels, more[0]]), torch.cat([labels, more[1]])
        return pixels[: self.cas_n], labels[: self.cas_n]


def plan_of(cfg: DictConfig, model: DiffusionModel, train: ImageSet) -> Plan:
    """Samples of classes as frequent as in training; LabError where CAS would take more than there are pictures."""
    if cfg.cas_n is not None and not cfg.cas_steps:
        raise LabError(f"cas_n={cfg.cas_n}: nothing learns from them; add cas_steps")
    cas_n = (cfg.cas_n or cfg.n) if cfg.cas_steps else 0
    if cas_n > len(train):
        raise LabError(f"cas_n={cas_n}: as many training pictures are learned from beside, and there are {len(train)}")
    asked: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(SETTINGS)))
    asked["guidance_scale"] = model.sampling.guidance_scale if cfg.guidance_scale is None else cfg.guidance_scale
    given = {key: value for key, value in asked.items() if value is not None}
    facts = {**model.provenance, **vars(model.sampling), **given, "n": cfg.n, "data": train.fingerprint}
    order, _ = floor_pictures(train, max(cfg.n, cas_n), cfg.seed)
    classes, further = train.labels[order[: cfg.n]], train.labels[order[cfg.n :]]
    a_colour = cfg.colour_count if isinstance(model.conditioner, ClipConditioner) else 0
    folders = folders_of(cfg, asked["guidance_scale"], usual_n(len(train)))
    return Plan(*folders, asked, facts, classes, further, cas_n, a_colour)


def usual_n(train: int) -> int:
    """Samples where nobody says otherwise: no more than leave as many training pictures for the reference."""
    return min(USUAL_N, train // 2)


def folders_of(cfg: DictConfig, guidance_scale: float, n: int) -> tuple[Path, Path]:
    """Where samples lie, and what is found of them: by guidance scale, and what else is not as usual, as n samples."""
    if cfg.out is not None:
        return Path(cfg.out), Path(cfg.out)
    usual = {**compose("evaluate", []), "n": n}
    name = "_".join([f"{guidance_scale:g}", *(f"{key}-{cfg[key]}" for key in APART if cfg[key] != usual[key])])
    name = re.sub(r"[^\w.+-]+", "", name.replace(",", "-"))
    space = "" if cfg.space == "judge" else f"_{cfg.space.replace('/', '_')}"
    made = Path(cfg.run) / "evaluation" / name
    return made, made.with_name(name + space)


def tell_time(cfg: DictConfig, plan: Plan, sampling: float, comparing: float, held_out: ImageSet) -> None:
    """How long it will take, before it begins."""
    count = len(plan.classes) + len(plan.further)
    text = f"{count} samples: about {sampling / 60:.0f} minutes; features: about {comparing / 60:.0f}"
    if cfg.cas_steps:
        minutes = cas_seconds(held_out, cfg.cas_steps) / 60
        text += f"; classifiers for CAS: about {minutes:.0f} minutes each, of two at most"
    logger.info("%s", text)


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
