"""What an evaluation shows: numbers beside those of real pictures, and what might be copied."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lab.data import ImageSet
from lab.errors import LabError
from lab.evaluation.memorisation import Audit
from lab.evaluation.worth import Worth
from lab.render import Section, from_uint8, grid

RESULT = "evaluation.json"


def results(run: Path) -> dict[Path, dict[str, Any]]:
    """What `lab.evaluate` found of a run, by file; LabError for a file that is damaged."""
    found = {}
    for path in sorted(run.glob(f"evaluation/*/{RESULT}")):
        try:
            found[path] = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise LabError(f"{path}: damaged ({error}); evaluate again") from error
    return found


def pairs(pixels: torch.Tensor, train: ImageSet, audit: Audit, count: int) -> Image.Image:
    """The samples nearest to a training picture, each above it. It holds pictures of the data set."""
    chosen = audit.suspicious(count)
    samples, neighbours = from_uint8(pixels[chosen]), train.view(audit.neighbours[chosen])
    columns = min(8, len(chosen))
    rows = [part for pair in zip(samples.split(columns), neighbours.split(columns), strict=True) for part in pair]
    captions = [f"{float(distance):.2f}" for distance in audit.distances[chosen]]
    texts = [text for part in range(0, len(captions), columns) for text in
             [*captions[part : part + columns], *[""] * len(captions[part : part + columns])]]  # fmt: skip
    return grid(torch.cat(rows), captions=texts, columns=columns, title="samples, and below each its nearest", cell=64)


def table(found: Worth) -> list[dict[str, Any]]:
    """A row a measure: generated, real at the same n."""
    generated, real = (found.facts()[side] for side in ("generated", "real"))
    return [
        {"measure": name, "generated": value, f"real, n = {found.n}": real[name]} for name, value in generated.items()
    ]


def about(found: Worth) -> str:
    """What must be known to read the numbers."""
    judge = (
        f"The judge is right about {found.judge['top1']:.1%} of held-out pictures, and has the class among its first "
    )
    space = f"five for {found.judge['top5']:.1%}. Space: {found.space}. "
    counts = f"{found.n} samples and {found.n} real pictures, each against the same {found.reference} others; "
    counts += f"real pictures are recognised and named among the {found.judge['images']} held-out ones; "
    return f"{judge}{space}{counts}seed {found.seed}."


def sections(found: Worth, factors: Mapping[str, Mapping[str, float]], folder: Path, command: str) -> list[Section]:
    """The page: numbers, and possible copies."""
    count, share = round(found.generated.copies * found.n), f"{found.generated.copies:.2%}"
    copies = (
        f"{count} of {found.n} samples ({share}) are nearer to a training picture than all but 1 % of held-out ones "
        "are; the nearest are shown. The sheet holds pictures of the data set."
    )
    sheet = (folder / "copies.png", "samples, and below each the nearest training picture")
    numbers = [Section("Numbers", about(found), table=table(found), command=command)]
    if factors:
        text = "Shares of pictures that the judge takes for a class with the factor that was asked for."
        numbers.append(Section("Known factors", text, table=[{"factor": name, **row} for name, row in factors.items()]))
    return [*numbers, Section("Copies?", copies, images=[sheet])]
