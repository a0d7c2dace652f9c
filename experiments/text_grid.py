"""Does it draw what words say? python -m experiments.text_grid run=results/clip_cond: prompts left, samples right."""

import logging
from collections.abc import Sequence
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
from lab.commands import command_line
from lab.conditioning import ClipConditioner
from lab.config import check_types
from lab.evaluation.agreement import Similarity, colour_in, share_of
from lab.parts import Parts
from lab.render import Scrub, Section, from_uint8, grid, save_image, save_video
from lab.runs import check_run

logger = logging.getLogger(__name__)
CELL = 128  # px of a sample on the sheet
PROMPTS = (
    *("a red flower", "an orange flower", "a yellow flower", "a pink flower", "a purple flower", "a blue flower"),
    *("a white flower", "a sunflower", "a red rose", "a pink rose", "a purple iris", "a yellow water lily"),
)
TYPES: dict[str, Any] = {**SAMPLING_TYPES, "prompts": Sequence[str] | None, "prompts_file": str | None}


def check(cfg: DictConfig) -> None:
    """LabError for a run that is none, and for prompts, numbers and videos that cannot be."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    check_sampling(cfg)
    prompts_of(cfg)


def prompts_of(cfg: DictConfig) -> list[str]:
    """Those given, or of a file's lines those with anything on them, or twelve; LabError for none."""
    if cfg.prompts is not None and cfg.prompts_file is not None:
        raise LabError("prompts and prompts_file are given together: use one of them")
    prompts = list(PROMPTS) if cfg.prompts is None else list(cfg.prompts)
    if cfg.prompts_file is not None:
        try:
            lines = Path(cfg.prompts_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise LabError(f"prompts_file={cfg.prompts_file}: cannot be read ({error})") from error
        prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise LabError(f"prompts{'_file' * (cfg.prompts_file is not None)}: name at least one prompt")
    return prompts


def agreement(prompts: Sequence[str], pixels: Tensor) -> list[float | None]:
    """For each prompt the share of its samples (P, N, H, W, 3) uint8 with the colour it names; None without one."""
    colours = [colour_in(prompt) for prompt in prompts]
    pairs = zip(colours, pixels, strict=True)
    return [None if colour is None else share_of(colour, samples) for colour, samples in pairs]


def run(cfg: DictConfig) -> Report:
    """Sample, and write a grid, a video and a table."""
    model, prompts = lab.load(cfg.run, cfg.device, precision=cfg.precision), prompts_of(cfg)
    if not isinstance(model.conditioner, ClipConditioner):
        raise LabError(f"run={cfg.run}: it takes no prompts; train one that does, +experiment=clip_cond")
    model.times(cfg.num_inference_steps, cfg.sampler, cfg.spacing)  # refused before anything is computed
    subjects = ask(model, None, prompts)
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "text_grid"
    facts = sampling_facts(model, cfg) | {"prompts": prompts}
    rows = torch.arange(len(prompts)).repeat_interleave(cfg.count)
    settings = sampling_of(cfg)
    stages = develop(model, subjects.condition[rows], range(len(rows)), settings, Parts(folder, facts))
    layout = {"row_labels": prompts, "columns": cfg.count, "cell": CELL}
    save_image(grid(from_uint8(stages[-1]), **layout), folder / "text_grid.png", facts)
    path = folder / f"text_grid.{cfg.video}"
    size = save_video(film(stages, **layout), path, facts, cfg.fps)
    similar = Similarity(model.conditioner.clip.to(model.device), subjects.phrases)(from_uint8(stages[-1]), rows)
    shares = agreement(prompts, stages[-1].unflatten(0, (len(prompts), cfg.count)))
    means = similar.view(len(prompts), cfg.count).mean(dim=1).tolist()
    write_table(folder / "text_grid.csv", {"prompt": prompts, "clip_similarity": means, "colour_agreement": shares})
    asked = [share for share in shares if share is not None]
    text = f"{cfg.count} samples of each prompt. Mean CLIP similarity {float(similar.mean()):.2f}."
    if asked:
        text += f" {sum(asked) / len(asked):.0%} of the samples have the colour that was asked for, as measured by the "
        text += "most frequent colour name in the middle of the picture."
    logger.info(text)
    labels = [f"evaluation {k + 1}" for k in range(len(stages) - 1)] + ["the samples"]
    scrub = Scrub(path, size, "what the network takes the picture for", labels, cfg.fps, len(stages) - 1)
    table = [
        {"prompt": prompt, "CLIP similarity": mean, "of the colour asked for": share}
        for prompt, mean, share in zip(prompts, means, shares, strict=True)
    ]
    command = command_line("experiments.text_grid", cfg)
    sheet = Section("Prompts", text, [(folder / "text_grid.png", "prompts left, samples right")], table, command)
    return Report(folder, "Does it draw what words say?", [sheet, Section("On the way", scrubs=[scrub])])


@entry_point("text_grid", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
