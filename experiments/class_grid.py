"""What has it learned? python -m experiments.class_grid run=results/class_cond: every class in order, with its name."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

import lab
from experiments.common import SAMPLING_TYPES, Report, check_sampling, sampling_facts, sampling_of, write_table
from experiments.developing import develop, film
from experiments.subjects import ask
from lab import LabError
from lab.cli import entry_point
from lab.clip import Clip
from lab.clip.captions import class_prompts
from lab.clip.retrieval import phrase_vectors
from lab.commands import command_line
from lab.config import check_types
from lab.evaluators import clip_of, judge_of
from lab.judging import recognised
from lab.judging.recognition import AMONG
from lab.parts import Parts
from lab.render import Scrub, Section, from_uint8, grid, save_image, save_video
from lab.runs import check_run

logger = logging.getLogger(__name__)
CELL = 128  # px of a sample on the sheet
TYPES: dict[str, Any] = {
    **SAMPLING_TYPES,
    "classes": Sequence[str | int] | None,
    "columns": int | None,
    "judge": str | None,
}


def check(cfg: DictConfig) -> None:
    """LabError for a run that is none, and for numbers and videos that cannot be."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    check_sampling(cfg)
    if cfg.columns is not None and cfg.columns < 1:
        raise LabError(f"columns={cfg.columns}: use at least 1")


def named_by(clip: Clip, names: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """Pictures (B, 3, H, W) -> their similarity (B, C) to every name."""
    texts = phrase_vectors(clip, [class_prompts(name) for name in names])
    return lambda images: clip.encode_images(images).cpu() @ texts.T


def share(hits: Tensor) -> float:
    """How many of (B,) are true."""
    return float(hits.float().mean())


def run(cfg: DictConfig) -> Report:
    """Sample, and write a grid, a video and a table."""
    model = lab.load(cfg.run, cfg.device, precision=cfg.precision)
    names: Sequence[str] = getattr(model.conditioner, "class_names", ())
    if not names:
        raise LabError(f"run={cfg.run}: it knows no classes; experiments.text_grid takes prompts")
    model.times(cfg.num_inference_steps, cfg.sampler, cfg.spacing)  # refused before anything is computed
    subjects, judge = ask(model, cfg.classes, None, count=len(names)), judge_of(names, cfg.judge)
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "class_grid"
    facts = sampling_facts(model, cfg) | {"classes": subjects.names}
    rows = torch.arange(len(subjects)).repeat_interleave(cfg.count)
    settings = sampling_of(cfg)
    stages = develop(model, subjects.condition[rows], range(len(rows)), settings, Parts(folder, facts))
    captions = [subjects.names[int(row)] for row in rows]
    layout = {"captions": captions, "columns": cfg.columns, "cell": CELL}
    save_image(grid(from_uint8(stages[-1]), **layout), folder / "class_grid.png", facts)
    path = folder / f"class_grid.{cfg.video}"
    size = save_video(film(stages, **layout), path, facts, cfg.fps)
    columns: dict[str, Sequence[Any]] = {"class": captions}
    text = f"{len(subjects)} classes, {cfg.count} sample{'s' * (cfg.count > 1)} of each."
    critics: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {}
    if judge is not None:
        about = f"{judge.about} It"
        critics["judge"] = (about, judge.to(model.device).logits)
    clip = clip_of(model, cfg.run)
    if clip is not None:
        critics["CLIP"] = (clip.name, named_by(clip, names))
    for critic, (about, scores) in critics.items():
        asked = subjects.repeated(cfg.count).classes
        first, five = recognised(scores, from_uint8(stages[-1]), asked)
        columns[f"first by {critic}"] = first.int().tolist()
        text += f" {about} finds the right one of {len(names)} classes first for {share(first):.0%} of the samples"
        if len(names) > AMONG:  # among five of five is always true
            columns[f"among five by {critic}"] = five.int().tolist()
            text += f", and among five for {share(five):.0%}"
        text += "."
    write_table(folder / "class_grid.csv", columns)
    logger.info(text)
    labels = [f"evaluation {k + 1}" for k in range(len(stages) - 1)] + ["the samples"]
    scrub = Scrub(path, size, "what the network takes the picture for", labels, cfg.fps, len(stages) - 1)
    command = command_line("experiments.class_grid", cfg)
    shown = f"the first {cfg.count} samples of each class" if cfg.count > 1 else "a sample a class"
    sheet = Section("Classes", text, images=[(folder / "class_grid.png", shown)], command=command)
    return Report(folder, "What has it learned?", [sheet, Section("On the way", scrubs=[scrub])])


@entry_point("class_grid", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
