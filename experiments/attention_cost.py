"""What does attention cost as pictures grow? python -m experiments.attention_cost measures it; no run is needed.

Full attention compares each of N places with every other, which takes a time that grows as N^2, and memory too where
the weights are kept for the way back. Linear attention (Shen et al. 2018) never compares two places: both grow as N.
"""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from experiments.attention_drawing import FITTED, fit, frames, plots, series
from experiments.attentions import CONTENDERS, FUSED, KEPT, LINEAR, OURS, Row, Sizes, measure
from experiments.common import Report, check_film, plain, to_csv
from experiments.timing import machine
from lab import LabError
from lab.cli import entry_point
from lab.commands import command_line
from lab.config import check_types
from lab.device import local_device
from lab.render import Scrub, Section, save_video
from lab.render.provenance import write_whole

logger = logging.getLogger(__name__)
GROWING = (
    "A square is as large as what its way keeps, beside the most that any keeps; the slider goes up in resolution."
)
KEEPS = (
    "What is counted are the tensors that autograd keeps on the way there for the way back, each piece of memory once "
    "and parameters left out (saved_mib); what an operation needs in between is not among them. On CUDA, peak_mib is "
    "torch.cuda.max_memory_allocated over both ways, beyond what was held before; a CPU does not tell it."
)
TYPES: dict[str, Any] = {
    **dict.fromkeys(("resolutions", "beyond"), Sequence[int]),
    **dict.fromkeys(("channels", "head_dim", "batch_size", "rounds"), int),
    "fps": float,
    **dict.fromkeys(("video", "out"), str),
}


def check(cfg: DictConfig) -> None:
    """LabError for sizes and numbers that cannot be, and for weights that this machine cannot keep."""
    check_types(cfg, TYPES)
    for key in ("channels", "head_dim", "batch_size", "rounds"):
        if cfg[key] < 1:
            raise LabError(f"{key}={cfg[key]}: use at least 1")
    check_film(cfg)
    heads = max(1, cfg.channels // cfg.head_dim)
    if cfg.channels % heads:
        raise LabError(f"head_dim={cfg.head_dim}: channels={cfg.channels} do not split into {heads} heads")
    sizes = list(cfg.resolutions)
    if len(set(sizes)) < 2 or len(set(sizes)) < len(sizes) or min(sizes) < 2:
        raise LabError(f"resolutions={sizes}: name two or more, each once and at least 2, e.g. [8, 16, 32]")
    if len({*sizes, *cfg.beyond}) < len(sizes) + len(cfg.beyond) or min(cfg.beyond, default=2) < 2:
        told = "name sides of at least 2 that resolutions does not have, each once, or none"
        raise LabError(f"beyond={list(cfg.beyond)}: {told}")
    weights = 3 * heads * max(sizes) ** 4  # them, their gradient and the softmax's
    for key, floats in (("resolutions", weights), ("beyond", 0)):
        largest = max(cfg[key], default=1)
        needed = 4 * cfg.batch_size * (floats + 8 * cfg.channels * largest**2)  # bytes, at the very least
        if needed > memory_here() / 2:
            told = f"takes {needed / 2**30:.0f} GiB, more than half of the memory here"
            raise LabError(f"{key}={list(cfg[key])}: {largest} {told}; use smaller ones")


def memory_here() -> float:
    """Bytes of the GPU where there is one, else of the machine; infinite where the system does not tell."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(local_device()).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return math.inf


def measure_all(cfg: DictConfig) -> list[Row]:
    """All rows: every way at each of the resolutions, and beyond them those that keep no weights."""
    sizes = Sizes(cfg.batch_size, cfg.channels, cfg.head_dim)
    rows: list[Row] = []
    for size in sorted([*cfg.resolutions, *cfg.beyond]):
        names = (FUSED, LINEAR) if size in cfg.beyond else tuple(CONTENDERS)
        rows += measure(names, size, sizes, cfg.rounds)
        told = (f"{row.attention} {row.milliseconds:.2f} ms, {row.saved_mib:.2f} MiB" for row in rows[-len(names) :])
        logger.info("%dx%d: %s", size, size, "; ".join(told))
    return rows


def exponents(rows: Sequence[Row], column: str) -> str:
    """What was fitted, in words, to be preceded by what it is that grows."""
    fitted = {name: fit(series(rows, name, column))[0] for name in (KEPT, FUSED, LINEAR)}
    told = ", ".join(f"N^{exponent:.2f} ({name})" for name, exponent in fitted.items())
    return f"grows as {told}, fitted to the largest sizes."


def about_time(rows: Sequence[Row]) -> str:
    """How time grows, and who is ahead at the largest size that the lab's own was measured at."""
    last = max(row.places for row in rows if row.attention == OURS)
    full, linear = (dict(series(rows, name, "milliseconds"))[last] for name in (OURS, LINEAR))
    ahead = (
        f"the lab's full attention takes {full:.3g} ms and its linear one {linear:.3g} ms, {full / linear:.2g} to one"
    )
    return f"Time {exponents(rows, 'milliseconds')} At {math.isqrt(last)}×{math.isqrt(last)} {ahead}."


def about_memory(rows: Sequence[Row]) -> str:
    """How memory grows, and which way the lab's full attention goes at which size."""
    kept, fused = (dict(series(rows, name, "saved_mib")) for name in (KEPT, FUSED))
    chosen: dict[str, list[str]] = {}
    for row in rows:
        if row.attention == OURS:
            ways = {"keeps the weights": kept[row.places], "takes the fused kernel": fused[row.places]}
            way = min(ways, key=lambda name: abs(ways[name] - row.saved_mib))
            chosen.setdefault(way, []).append(f"{row.resolution}×{row.resolution}")
    told = ", and ".join(f"{way} at {', '.join(sizes)}" for way, sizes in chosen.items())
    return f"What is kept {exponents(rows, 'saved_mib')} Here the lab's full attention {told}."


def run(cfg: DictConfig) -> Report:
    """Measure, and write a table and plots."""
    rows, folder = measure_all(cfg), Path(cfg.out)
    facts = {key: plain(cfg[key]) for key in ("resolutions", "beyond", "channels", "head_dim", "batch_size", "rounds")}
    facts |= machine(bf16=False)
    write_whole(folder / "attention_cost.csv", lambda staged: staged.write_text(to_csv(rows)))
    time, memory = about_time(rows), about_memory(rows)
    logger.info("%s\n%s", time, memory)
    at = f"{cfg.channels} channels, heads of {cfg.head_dim}, batch of {cfg.batch_size}"
    about = f"{facts['device']}, {facts['precision']}; {at}; dotted: fitted to the {FITTED} largest sizes"
    drawn = [(path, about) for path in plots(rows, folder, facts)]
    path, sides = folder / f"attention_cost.{cfg.video}", sorted({row.resolution for row in rows})
    size = save_video(frames(rows), path, facts, cfg.fps)
    labels = [f"{side}×{side}" for side in sides]
    scrub = Scrub(path, size, "what each way keeps, areas to scale", labels, cfg.fps)
    sections = [
        Section("As pictures grow", GROWING, scrubs=[scrub], command=command_line("experiments.attention_cost", cfg)),
        Section("Time", time, images=drawn[:1]),
        Section("Memory", f"{KEEPS}\n\n{memory}", images=drawn[1:]),
        Section("Measured", table=[asdict(row) for row in rows]),
    ]
    return Report(folder, "What does attention cost as pictures grow?", sections)


@entry_point("attention_cost", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
