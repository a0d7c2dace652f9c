"""Which is better? python -m lab.compare runs='[results/a, results/b]': a table of what lab.evaluate found."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lab.cli import entry_point
from lab.commands import command_line
from lab.config import check_types
from lab.errors import LabError
from lab.evaluation.report import results
from lab.evaluation.tools import check_space
from lab.render import Section, page
from lab.render.provenance import write_whole

logger = logging.getLogger(__name__)
SAME = ("n", "data", "space", "reference", "judge", "clip")  # or figures do not compare
WHERE_MEASURED = ("judge_weights", "colour_count", "cas_steps", "cas_n")  # the same, but for those without
# In which a run's samples may differ.
SAMPLED = ("sampler", "spacing", "num_inference_steps", "guidance_interval", "neighbours", "seed")
HOW = ("n", "colour_n", *SAMPLED)  # the samples came about


def check(cfg: DictConfig) -> None:
    """LabError for runs that nobody has evaluated."""
    check_types(cfg, {"runs": Sequence[str] | None, "space": str, "out": str})
    if not cfg.runs:
        raise LabError("runs=[...]: name folders of runs that python -m lab.evaluate has looked at")
    check_space(cfg.space)
    if len({Path(run).resolve() for run in cfg.runs}) < len(cfg.runs):
        raise LabError(f"runs=[{', '.join(cfg.runs)}]: name each once")
    for run in cfg.runs:
        if not Path(run).is_dir():
            raise LabError(f"runs={run}: there is no such folder")
        results_of(run, cfg.space)


def results_of(run: str, space: str = "judge", n: int | None = None) -> list[dict[str, Any]]:
    """All evaluations of a run in a space, of n samples, by guidance scale; None: of the most that any has.

    Raises LabError for none, or for one that cannot be read.
    """
    kept = results(Path(run))
    if kept and all("generated" not in one for one in kept.values()):
        raise LabError(f"runs={run}: it is no diffusion model; its figures are in {run}/evaluation/held_out")
    found = []
    for path, one in kept.items():
        if "held_out_n" not in one:
            advice = f"python -m lab.evaluate run={run} guidance_scale={one['guidance_scale']:g} looks again"
            raise LabError(f"{path}: by an earlier lab; {advice}")
        if one.get("space_asked", "judge") == space:
            found.append({**one, "run_name": run})
    if not found:
        asked = f"run={run}" if space == "judge" else f"run={run} space={space}"
        raise LabError(f"runs={run}: no evaluation in space={space}; python -m lab.evaluate {asked} makes one")
    n = max(one["n"] for one in found) if n is None else n
    alike = [one for one in found if one["n"] == n]
    if len(alike) < len(found):
        logger.info("%s: %d of %d evaluations are of other numbers than %d samples, and left out",
                    run, len(found) - len(alike), len(found), n)  # fmt: skip
    return sorted(alike, key=lambda one: float(one["guidance_scale"]))


def rows_of(runs: Sequence[str], space: str = "judge", n: int | None = None) -> list[dict[str, Any]]:
    """A row an evaluation, as `results_of` has them, and two for real pictures; LabError where they do not compare."""
    found = [one for run in runs for one in results_of(run, space, n)]
    for key in (*SAME, *WHERE_MEASURED):
        values = {str(one.get(key)) for one in found if key in SAME or one.get(key)}
        if len(values) > 1:
            raise LabError(f"runs: evaluated with {key} {' and '.join(sorted(values))}, which cannot be compared")
    rows = [row_of(one) for one in found]
    first = found[0]
    alike = [one for one in found if one["seed"] == first["seed"]]  # other seeds have other real pictures
    for side, name, n in (("real", "real pictures", first["n"]), ("held_out", "held out", first["held_out_n"])):
        real = {"run": f"{name}, n = {n}", "guidance": None, **anywhere(alike, side), "seed": first["seed"]}
        rows.append(real)
    return rows


def anywhere(found: Sequence[Mapping[str, Any]], side: str) -> dict[str, Any]:
    """What any of the evaluations tells of real pictures, since not all measure all."""
    told: dict[str, Any] = {}
    for one in found:
        told |= {key: value for key, value in one[side].items() if value is not None or key not in told}
    return told


def row_of(one: dict[str, Any]) -> dict[str, Any]:
    """The measures of an evaluation, and how its samples came about."""
    how = {key: one.get(key) for key in HOW}
    if how["guidance_interval"]:
        how["guidance_interval"] = " to ".join(f"{level:g}" for level in how["guidance_interval"])
    return {"run": one["run_name"], "guidance": one["guidance_scale"], **one["generated"], **how}


def about(one: dict[str, Any]) -> str:
    """What must be known to read the table."""
    text = f"n = {one['n']} against {one['reference']} training pictures, in the space of {one['space']}."
    if one["judge"]:
        first, five = (one["judge"][name] for name in ("top1", "top5"))
        text += f" The judge is right about {first:.1%} of held-out pictures, and has the class among its first five "
        text += f"for {five:.1%}."
    return text


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, which may lack some measures in some rows."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


@entry_point("compare", check)
def main(cfg: DictConfig) -> None:
    """Write a table as CSV and a page."""
    rows, folder = rows_of(cfg.runs, cfg.space), Path(cfg.out)
    write_whole(folder / "compare.csv", lambda staged: staged.write_text(as_csv(rows)))
    told = about(results_of(cfg.runs[0], cfg.space)[0])
    command = command_line("lab.compare", cfg)
    page(folder / "index.html", "Which is better?", [Section("All measures", told, table=rows, command=command)])
    logger.info("%s\n%s\nopen %s", as_csv(rows), told, folder / "index.html")


if __name__ == "__main__":
    main()
