"""What have the kept models learned? python -m experiments.first_look: real flowers in half a minute, untrained.

Each diffusion model in results/reference is asked for a few classes, or prompts if it takes any.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

import lab
from experiments.common import SAMPLING_TYPES, sampling_facts, sampling_of, spread
from lab import LabError, runs
from lab.cli import entry_point
from lab.commands import command_line
from lab.conditioning import ClipConditioner
from lab.config import check_types
from lab.model import DiffusionModel
from lab.render import Section, grid, page, save_image
from lab.runs import CONFIG, read_config, set_of
from lab.training.log import read_rows

logger = logging.getLogger(__name__)
CELL = 96  # px of a sample on a sheet
CLASSES = (
    *("sunflower", "rose", "water lily", "daffodil", "hibiscus", "purple coneflower", "bird of paradise"),
    *("passion flower", "yellow iris", "tree poppy", "oxeye daisy", "anthurium"),
)
PROMPTS = (
    *("a yellow sunflower", "a pink rose", "a white lotus", "a yellow daffodil", "a red hibiscus"),
    *("a purple coneflower", "an orange marigold", "a blue gentian", "a purple iris", "a red poppy"),
    *("a white daisy", "a pink anthurium"),
)
TYPES: dict[str, Any] = {key: kind for key, kind in SAMPLING_TYPES.items() if key not in ("run", "fps", "video")} | {
    "models": Sequence[str] | None,
    "out": str,
}


def check(cfg: DictConfig) -> None:
    """LabError for numbers that cannot be, and where no model is kept."""
    check_types(cfg, TYPES)
    if cfg.count < 1:
        raise LabError(f"count={cfg.count}: use at least 1")
    if cfg.models is not None and not cfg.models:
        raise LabError("models=[]: name some, or leave it out for all")
    models_of(cfg)


def models_of(cfg: DictConfig) -> list[Path]:
    """The kept runs that are sampled from: those named, else all; LabError where there are none."""
    folders = [path.parent for path in sorted(runs.REFERENCE.glob(f"*/{CONFIG}"))]
    kept = [run for run in folders if read_config(run).task == "diffusion"]
    found = [run for run in kept if cfg.models is None or run.name in cfg.models]
    missing = sorted(set(cfg.models or ()) - {run.name for run in found})
    if missing:
        raise LabError(f"models: {runs.REFERENCE} keeps no {missing[0]}; it has {', '.join(run.name for run in kept)}")
    if not found:
        raise LabError(f"{runs.REFERENCE}: no diffusion model is kept there; python -m lab.export run=DIR keeps one")
    return found


def subjects_of(model: DiffusionModel) -> dict[str, Any]:
    """What a model is asked for: prompts where it takes any, else classes, well-known ones where it knows them."""
    if isinstance(model.conditioner, ClipConditioner):
        return {"prompts": list(PROMPTS)}
    names: Sequence[str] = getattr(model.conditioner, "class_names", ())
    known = [name for name in CLASSES if name in names]
    known = known or [names[number] for number in spread(model, len(CLASSES)) or ()]
    return {"classes": known} if known else {}


def learned(run: Path) -> str:
    """On what a run was trained, and how long, as far as the run says."""
    learned_on, log = set_of(read_config(run)), read_rows(run / "log.csv")
    if not (learned_on and log):
        return ""
    return f"Trained from zero on {learned_on}: {int(log[-1]['step']):,} steps, {float(log[-1]['epoch']):.0f} epochs."


def look(run: Path, cfg: DictConfig, folder: Path) -> Section:
    """A sheet of one model's samples, with what it was trained on and how long."""
    model = lab.load(run, cfg.device, precision=cfg.precision)
    asked = subjects_of(model)
    samples = model.sample(**asked, **sampling_of(cfg), count=cfg.count, output="tensor")
    assert isinstance(samples, Tensor)
    path, names = folder / f"{run.name}.png", next(iter(asked.values()), None)
    facts = {**sampling_facts(model, cfg), **asked}
    save_image(grid(samples, row_labels=names, columns=cfg.count, cell=CELL), path, facts)
    text = f"{learned(run)} The first {cfg.count} samples of seed {cfg.seed}, nothing chosen."
    return Section(run.name, text, images=[(path, f"{cfg.count} samples of each")])


@entry_point("first_look", check)
def main(cfg: DictConfig) -> None:
    """Sample every model, and write the page."""
    started, folder = time.perf_counter(), Path(cfg.out)
    sections = [look(run, cfg, folder) for run in models_of(cfg)]
    again = Section("Once more", command=command_line("experiments.first_look", cfg))
    page(folder / "index.html", "What have the kept models learned?", [*sections, again])
    logger.info("%.0f seconds; open %s", time.perf_counter() - started, folder / "index.html")


if __name__ == "__main__":
    main()
