"""Every figure of the article from trained runs: python -m experiments.blog writes one page, results/blog/index.html.

Figure by figure: what it shows, the command that makes it alone, how long it took, and how often the network was asked.
Started again, it goes on from what it has.
"""

import importlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from experiments.common import Report
from lab import LabError
from lab.cli import entry_point
from lab.config import check_keys, check_types, compose
from lab.device import Precision
from lab.networks import UNet
from lab.render import Section, check_video, page
from lab.render.video import smaller_video
from lab.runs import check_run

logger = logging.getLogger(__name__)
FIGURES = {  # in the page's order, and the run each is made from
    "denoising": "clip",
    "class_grid": "class",
    "text_grid": "clip",
    "clip_map": "clip",
    "cfg_sweep": "class",
    "phi_sweep": "class",
    "style_transfer": "class",
    "interpolation": "class",
    "toy_guidance": None,
    "attention_cost": None,
}
TYPES: dict[str, Any] = {
    "only": Sequence[str] | None,
    **dict.fromkeys(("class_run", "clip_run", "device"), str | None),
    "precision": Precision,
    "out": str,
    "video": str,
    "compact": bool,
}


def check(cfg: DictConfig) -> None:
    """LabError for figures and runs that are none, and for settings that one of the figures cannot have."""
    check_types(cfg, TYPES)
    check_video(cfg.video)
    for name in cfg.only if cfg.only is not None else ():
        if name not in FIGURES:
            raise LabError(f"only={name}: use some of {', '.join(FIGURES)}")
    for key in ("clip_run", "class_run"):
        if cfg[key] is not None:
            check_run(cfg[key])
    for name in chosen(cfg):
        settings = settings_of(cfg, name)
        check_keys(settings, name)
        module_of(name).check(settings)


def chosen(cfg: DictConfig) -> list[str]:
    """The figures to be made, in the page's order."""
    return [name for name in FIGURES if cfg.only is None or name in cfg.only]


def module_of(name: str) -> ModuleType:
    """The experiment behind a figure."""
    return importlib.import_module(f"experiments.{name}")


def settings_of(cfg: DictConfig, name: str) -> DictConfig:
    """The experiment's own configuration with the preset's changes, its run, and a folder of its own."""
    settings = compose(name, [])
    asked: dict[str, Any] = dict(cfg.preset.get(name) or {})
    asked |= {"out": str(Path(cfg.out) / name)}
    asked |= {key: cfg[key] for key in ("video", "device", "precision") if key in settings}
    kind = FIGURES[name]
    if kind is not None:
        run = cfg.class_run if kind == "class" and cfg.class_run is not None else cfg.clip_run
        if run is None:
            raise LabError(f"{kind}_run: name the run that {name} is made from, or leave it out of only=[...]")
        asked["run"] = run
    for key in asked:
        if key not in settings:
            raise LabError(f"preset.{name}.{key}: experiments.{name} has no such key")
    return OmegaConf.merge(settings, asked)  # type: ignore[return-value]


@contextmanager
def counted() -> Iterator[list[int]]:
    """The pictures that a UNet is asked about inside, one number a call."""
    calls: list[int] = []

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, UNet) and given and isinstance(given[0], Tensor):
            calls.append(len(given[0]))

    hook = register_module_forward_pre_hook(note)
    try:
        yield calls
    finally:
        hook.remove()


@dataclass(frozen=True)
class Figure:
    """An experiment that was run for the page."""

    name: str
    report: Report
    seconds: float
    evaluations: int  # of the network, each branch of guidance one

    @property
    def sections(self) -> list[Section]:
        """The report's, the first under its question and with what it cost."""
        first, *rest = self.report.sections
        asked = f", {self.evaluations:,} evaluations of the network on a picture" if self.evaluations else ""
        cost = f"{self.seconds:.0f} seconds{asked}."
        headed = replace(first, title=self.report.question, text=f"{first.text}\n\n{cost}")
        return [headed, *(replace(section, level=3) for section in rest)]


def cost_of(figures: Sequence[Figure]) -> Section:
    """What the page took, figure by figure."""
    table = [{"figure": one.name, "seconds": one.seconds, "evaluations": one.evaluations} for one in figures]
    return Section("What it cost", "Figures that were there already cost only their drawing.", table=table)  # type: ignore[arg-type]


@entry_point("blog", check)
def main(cfg: DictConfig) -> None:
    """Make the figures, and write the page after each of them."""
    figures: list[Figure] = []
    for name in chosen(cfg):
        logger.info("%s", name)
        began = time.perf_counter()
        try:
            with counted() as calls:
                report = module_of(name).run(settings_of(cfg, name))
        except LabError as error:  # e.g. a map of a data set that is out of reach: the others can be made
            logger.warning("%s is left out: %s", name, error)
            continue
        report.write()
        figures.append(Figure(name, report, time.perf_counter() - began, sum(calls)))
        sections = [section for figure in figures for section in figure.sections]
        whole = [*sections, cost_of(figures)]
        page(Path(cfg.out) / "index.html", "A diffusion model from zero", whole)
    if not figures:
        raise LabError("no figure could be made; the lines above say why")
    if cfg.compact:
        page(Path(cfg.out) / "index.html", "A diffusion model from zero", whole, compact=True)
        for scrub in (scrub for section in whole for scrub in section.scrubs):
            if cfg.video == "mp4":
                Path(scrub.video).write_bytes(smaller_video(Path(scrub.video)))  # what the page has
    logger.info("open %s", Path(cfg.out) / "index.html")


if __name__ == "__main__":
    main()
