"""What the experiments share: classes to show, a table and a plot to read."""

import csv
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from lab import LabError
from lab.device import Precision
from lab.diffusion.guidance import check_interval
from lab.evaluation.drawing import chunks_of
from lab.model import DiffusionModel
from lab.parts import Part, Parts, named
from lab.render import Section, check_video, figure_image, page, style
from lab.render.provenance import write_whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What an experiment found, as the sections of a page that is still to be written."""

    folder: Path
    question: str  # the page's title
    sections: Sequence[Section]

    def write(self) -> None:
        """The page, `folder`/index.html; LabError where it cannot be written."""
        page(self.folder / "index.html", self.question, self.sections)
        logger.info("open %s", self.folder / "index.html")


SAMPLING = ("num_inference_steps", "guidance_scale", "guidance_interval", "sampler", "spacing", "seed", "batch_size")
SAMPLING_TYPES: dict[str, Any] = {  # keys that every experiment with plain samples has
    "precision": Precision,
    **dict.fromkeys(("num_inference_steps", "batch_size"), int | None),
    "guidance_scale": float | None,
    "guidance_interval": Sequence[float] | None,
    **dict.fromkeys(("count", "seed"), int),
    "fps": float,
    "video": str,
    **dict.fromkeys(("run", "sampler", "spacing", "device", "out"), str | None),
}


def check_sampling(cfg: DictConfig) -> None:
    """LabError for what of SAMPLING_TYPES an experiment has, and cannot be."""
    for key in ("count", "num_inference_steps", "batch_size"):
        if key in cfg and cfg[key] is not None and cfg[key] < 1:
            raise LabError(f"{key}={cfg[key]}: use at least 1")
    if cfg.guidance_interval is not None:
        check_interval("guidance_interval", cfg.guidance_interval)
    check_film(cfg)


def check_film(cfg: DictConfig) -> None:
    """LabError for a video that cannot be made here."""
    if not 0 < cfg.fps < math.inf:
        raise LabError(f"fps={cfg.fps:g}: use more than 0")
    check_video(cfg.video)


def plain(cfg: Any) -> Any:
    """Lists and dictionaries in place of a config's nodes."""
    return OmegaConf.to_container(cfg) if OmegaConf.is_config(cfg) else cfg


def sampling_of(cfg: DictConfig) -> dict[str, Any]:
    """SAMPLING as `DiffusionModel.sample` takes it."""
    return {key: plain(cfg[key]) for key in SAMPLING}


def sampling_facts(model: DiffusionModel, cfg: DictConfig) -> dict[str, Any]:
    """The same of an experiment with plain samples."""
    return model.facts_of({**sampling_of(cfg), "count": cfg.count})


def in_pieces(
    model: DiffusionModel,
    count: int,
    settings: Mapping[str, Any],
    parts: Parts,
    make: Callable[[Tensor], Part],
    about: str,
) -> list[Part]:
    """What `make` gives for the rows of each batch of `count`, kept as it comes. settings: of sampling."""
    chunks = tqdm(chunks_of(model, count, settings), desc=about, leave=False, disable=None)
    return [parts.get(named("rows", rows), partial(make, rows)) for rows in chunks]


def spread(model: DiffusionModel, count: int = 8) -> list[int] | None:
    """Numbers of `count` of the run's classes, evenly spread; None where it has none."""
    names: Sequence[str] = getattr(model.conditioner, "class_names", ())
    count = min(count, len(names))
    return [round(i * (len(names) - 1) / max(1, count - 1)) for i in range(count)] or None


def to_csv(rows: Sequence[Any]) -> str:
    """Dataclasses of one kind as CSV, with a header."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(asdict(rows[0])))
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return lines.getvalue()


def log_log(
    lines: Mapping[str, Sequence[tuple[float, float]]], title: str, x: str, y: str, level: float | None = None
) -> Image.Image:
    """Lines of (x, y) by name, both axes logarithmic; `level` is dashed."""
    with matplotlib.style.context(style(), after_reset=True):
        figure = Figure()
        axes = figure.subplots()
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        if level is not None:
            axes.axhline(level, color="#8a8a8a", linewidth=0.8, linestyle="--")
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
        ticks = sorted({place for points in lines.values() for place, _ in points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        axes.set_title(title)
        return figure_image(figure)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Columns of equal length as CSV."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_whole(path, lambda staged: staged.write_text(lines.getvalue()))
