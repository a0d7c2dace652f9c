"""What does guidance cost? python -m experiments.guidance_quality runs='[results/class_cond]'.

Each run is evaluated at each scale (`lab.evaluate`, which goes on from the samples that it has): likeness to what was
asked for rises with guidance, and variety falls. Both are drawn beside what real pictures get.
"""

import logging
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from experiments.common import Report
from lab import LabError
from lab.cli import entry_point
from lab.commands import command_line
from lab.compare import SAMPLED, about, as_csv, results_of, rows_of
from lab.config import check_types
from lab.evaluate import TYPES as EVALUATED
from lab.evaluate import evaluate
from lab.evaluation.tools import check_space
from lab.render import Section, figure_image, save_image, style
from lab.render.provenance import write_whole
from lab.runs import check_run

logger = logging.getLogger(__name__)
HOW = ("num_inference_steps", "sampler", "spacing", "seed", "batch_size")
PASSED_ON = ("n", *HOW, "judge", "space", "data", "cas_steps", "cas_n", "device", "precision")
TYPES: dict[str, Any] = {
    **{key: EVALUATED[key] for key in (*PASSED_ON, "out") if key in EVALUATED},
    "runs": Sequence[str] | None,
    "scales": Sequence[float],
}
PANELS = {  # measure: what it is called
    "fid": "FID",
    "precision": "precision",
    "recall": "recall",
    "top1": "judge's top-1",
    "diversity": "distance within a class",
    "cas_top1": "CAS, top-1",
}
REAL = {"real pictures": "--", "held out": ":"}


def check(cfg: DictConfig) -> None:
    """LabError for runs that are none, and for scales that cannot be."""
    check_types(cfg, TYPES)
    if not cfg.runs:
        raise LabError("runs=[...]: name folders of diffusion runs, e.g. [results/class_cond]")
    for run in cfg.runs:
        check_run(run)
    check_space(cfg.space)
    if not all(isfinite(scale) for scale in cfg.scales):
        raise LabError(f"scales={list(cfg.scales)}: use numbers")


def lines_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of samples by what they are called: the run, its folders as well where two end alike, and what differs."""
    made = [row for row in rows if row["guidance"] is not None]
    runs = {row["run"] for row in made}
    short = len({Path(run).name for run in runs}) == len(runs)
    differs = [key for key in SAMPLED if len({row.get(key) for row in made}) > 1]
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in made:
        name = Path(row["run"]).name if short else row["run"]
        told = [f"{key.replace('_', ' ')} {row[key]}" for key in differs if row.get(key) is not None]
        lines.setdefault(", ".join([name, *told]), []).append(row)
    return lines


def plot(rows: Sequence[dict[str, Any]]) -> Image.Image:
    """A panel a measure that was taken: a line a run over its scales, and what real pictures get across."""
    lines = lines_of(rows)
    shown = [name for name in PANELS if any(row.get(name) is not None for line in lines.values() for row in line)]
    with matplotlib.style.context(style(), after_reset=True):
        figure = Figure(figsize=(10, 2.9 * ((len(shown) + 2) // 3)), layout="constrained")
        for number, name in enumerate(shown):
            axes = figure.add_subplot((len(shown) + 2) // 3, 3, number + 1)
            for label, line in lines.items():
                points = [(row["guidance"], row[name]) for row in line if row.get(name) is not None]
                if points:
                    axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
            for row in rows:
                if row["guidance"] is None and row.get(name) is not None:
                    kind = str(row["run"]).partition(",")[0]
                    axes.axhline(row[name], color="0.55", linewidth=1, linestyle=REAL[kind], label=kind)
            axes.set(title=PANELS[name], xlabel="guidance scale")
        handles = {
            label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
        return figure_image(figure)


def run(cfg: DictConfig) -> Report:
    """Evaluate what is asked for, and tell all that has been evaluated of the runs."""
    settings: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(PASSED_ON)))
    n = cfg.n
    for name in cfg.runs:
        for scale in cfg.scales:
            logger.info("%s at guidance %g", name, scale)
            n = evaluate(name, guidance_scale=float(scale), **settings).get("n")
    rows, folder = rows_of(cfg.runs, cfg.space, n), Path(cfg.out)
    save_image(plot(rows), folder / "curves.png", {"runs": list(cfg.runs), **settings})
    write_whole(folder / "guidance_quality.csv", lambda staged: staged.write_text(as_csv(rows)))
    caption = "over the scale of guidance; dashed what as many real pictures get, dotted what held-out ones get"
    told = about(results_of(cfg.runs[0], cfg.space, n)[0])
    command = command_line("experiments.guidance_quality", cfg)
    section = Section("Likeness and variety", told, [(folder / "curves.png", caption)], rows, command)
    return Report(folder, "What does guidance cost?", [section])


@entry_point("guidance_quality", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
