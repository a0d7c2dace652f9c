"""What does a CLIP see in a data set? python -m experiments.clip_map run=results/clip_cond draws a map of it.

Near pictures lie near each other (t-SNE), and the names of the classes lie where their texts do: once as they are, set
apart by the modality gap, and once moved by the difference of both means, as `ClipVector.modality_shift` moves prompts.
Measured are the gap, and the share of a picture's nearest neighbours that are of its class. The maps hold pictures of
the data set, or with marks=colours their colours alone: whether the former may be shared its licence says.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from experiments import closing_gap
from experiments.clip_source import clip_for, pictures_for
from experiments.clip_space import Space, around_names, gap, lay_out, moved, purity, purity_by_chance, space, spread
from experiments.common import Report, check_film, to_csv, write_table
from experiments.map_drawing import dots, draw_map, thumbnails
from lab import LabError
from lab.cli import entry_point
from lab.clip.colours import dominant_colours
from lab.commands import command_line
from lab.config import check_types
from lab.data import ImageSet
from lab.render import Section, save_image
from lab.render.provenance import write_whole
from lab.runs import check_run

logger = logging.getLogger(__name__)
MARKS = ("pictures", "colours")
TYPES: dict[str, Any] = {
    "count": int | None,
    **dict.fromkeys(("k", "seed"), int),
    "perplexity": float,
    "fps": float,
    **dict.fromkeys(("split", "marks", "video"), str),
    **dict.fromkeys(("run", "clip", "device", "out", "data.root", "data.cache_dir"), str | None),
}
EXTREMES = 6  # classes that are told of at either end
TITLES = {"as_they_are": "as they are", "moved": "moved by the difference of means"}
ABOUT = {
    "as_they_are": "A CLIP's two towers put what they see into two cones. Names whose neighbours are names, not "
    "pictures, lie in a part of the space that a network trained on vectors of pictures has never seen.",
    "moved": "All texts are moved by the difference between the mean picture and the mean text, which closes the gap. "
    "How far each name still is from its own pictures is what the CLIP has not learned.",
}
CLOSING = (
    "The same vectors from the side, without any map: along the gap, and across it where pictures vary most. Texts "
    "move as far as the slider says; at 1 their mean is that of the pictures."
)
MEASURES = {
    "gap": "modality gap: norm of the difference of means",
    "gap_moved": "… after texts were moved by that difference",
    "gap_by_run": "… after they were moved as the run moves prompts",
    "spread_pictures": "spread of pictures around their mean",
    "spread_texts": "spread of texts around theirs",
    "mingled": "share of a name's nearest that are pictures",
    "mingled_moved": "… after texts were moved",
    "met": "share of a name's nearest pictures that are of its class",
    "met_moved": "… after texts were moved",
    "purity": "share of a picture's nearest pictures that are of its class",
    "chance": "… were they drawn at random",
}


@dataclass(frozen=True)
class Row:
    """What is measured, in a space of unit vectors; "moved": with texts moved by the difference of means."""

    clip: str
    pictures: int
    classes: int
    gap: float  # norm of the difference of both means (Liang et al. 2022)
    gap_moved: float
    gap_by_run: float | None  # after texts were moved as the run moves its prompts
    spread_pictures: float  # root mean square distance from their mean
    spread_texts: float
    mingled: float  # share of a name's k nearest, of both kinds, that are pictures, mean over names
    mingled_moved: float
    met: float  # share of a name's k nearest pictures that are of its class
    met_moved: float
    k: int
    purity: float  # share of a picture's k nearest pictures that are of its class, mean over pictures
    chance: float  # what drawing them at random would give


@dataclass(frozen=True)
class Point:
    """One thing on both maps."""

    kind: str  # picture | name
    class_name: str
    number: int | None  # of a picture in its set
    purity: float | None
    x_as_they_are: float
    y_as_they_are: float
    x_moved: float
    y_moved: float


def check(cfg: DictConfig) -> None:
    """LabError for a run that is none, and for values that no map can have."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    for key in ("count", "k"):
        if cfg[key] is not None and cfg[key] < 1:
            raise LabError(f"{key}={cfg[key]}: use at least 1")
    if not cfg.perplexity > 0:
        raise LabError(f"perplexity={cfg.perplexity:g}: use more than 0, e.g. 30")
    check_film(cfg)
    for key, known in (("split", ("held_out", "train")), ("marks", MARKS)):
        if cfg[key] not in known:
            raise LabError(f"{key}={cfg[key]}: use {' or '.join(known)}")


def measure(name: str, found: Space, by_run: Tensor | None, pure: Tensor, k: int) -> Row:
    """The numbers of a space. by_run: by how much (D,) the run moves texts; pure: the purity (N,) of each picture."""
    shifted = moved(found, gap(found))
    (mingled, met), (mingled_moved, met_moved) = (around_names(one, k) for one in (found, shifted))
    return Row(
        clip=name,
        pictures=len(found.pictures),
        classes=len(found.texts),
        gap=size(gap(found)),
        gap_moved=size(gap(shifted)),
        gap_by_run=None if by_run is None else size(gap(moved(found, by_run))),
        spread_pictures=spread(found.pictures),
        spread_texts=spread(found.texts),
        mingled=mingled,
        mingled_moved=mingled_moved,
        met=met,
        met_moved=met_moved,
        k=k,
        purity=float(pure.mean()),
        chance=purity_by_chance(found.labels),
    )


def size(vector: Tensor) -> float:
    """The norm of a vector (D,), as far as single precision knows it."""
    return round(float(vector.norm()), 6)


def by_class(found: Space, pure: Tensor) -> list[dict[str, Any]]:
    """Purity of each class, the purest first."""
    rows = [
        {"class": name, "pictures": int(own.sum()), "purity": float(pure[own].mean())}
        for name, own in ((name, found.labels == number) for number, name in enumerate(found.names))
    ]
    return sorted(rows, key=lambda row: -row["purity"])


def told(row: Row) -> str:
    """The measures in words."""
    everything = row.pictures / (row.pictures + row.classes - 1)
    left = row.gap_by_run
    by_run = "" if left is None else f"Moved as this run moves its prompts, names are left {left:.2f} away."
    return (
        f"The mean picture and the mean text are {row.gap:.2f} apart, where pictures lie {row.spread_pictures:.2f} "
        f"from their mean and texts {row.spread_texts:.2f} from theirs (root mean square; all have length 1). "
        f"{by_run}\n\nOf a name's {row.k} nearest, {row.mingled:.0%} are pictures, and {row.mingled_moved:.0%} once "
        f"texts are moved, where {everything:.0%} of all there is are. Of its {row.k} nearest pictures {row.met:.0%} "
        f"are of its class, and {row.met_moved:.0%} then.\n\nOf a picture's {row.k} nearest, {row.purity:.1%} are of "
        f"its class; by chance {row.chance:.1%} would be."
    )


def points(found: Space, chosen: Tensor, pure: Tensor, places: Mapping[str, Tensor]) -> list[Point]:
    """Pictures, then names, with their places (N + K, 2) on each map."""
    where = torch.cat([places[kind] for kind in TITLES], dim=1).tolist()
    of_pictures = zip(found.labels.tolist(), chosen.tolist(), pure.tolist(), strict=True)
    pictures = [("picture", found.names[label], number, share) for label, number, share in of_pictures]
    names = [("name", name, None, None) for name in found.names]
    return [Point(*who, *place) for who, place in zip([*pictures, *names], where, strict=True)]


def maps(
    cfg: DictConfig, folder: Path, facts: Mapping[str, Any], found: Space, images: ImageSet, chosen: Tensor
) -> tuple[dict[str, Tensor], list[Section]]:
    """Draw both maps; the places (N + K, 2) of pictures and names on each, and the page's sections."""
    if cfg.marks == "colours":
        marks = dots(dominant_colours(images.pixels[chosen]).tolist())
    else:
        marks = thumbnails(images.view(chosen))
    places, sections = {}, []
    for kind, shown in (("as_they_are", found), ("moved", moved(found, gap(found)))):
        count, path = len(chosen), folder / f"map_{kind}.png"
        places[kind] = lay_out(torch.cat([shown.pictures, shown.texts]), cfg.perplexity, cfg.seed)
        title = f"{count} pictures of {images.name}, {len(shown.names)} names {TITLES[kind]}"
        save_image(draw_map(places[kind][:count], marks, places[kind][count:], shown.names, title), path, facts)
        sections.append(Section(f"Names {TITLES[kind]}", ABOUT[kind], images=[(path, title)]))
    return places, sections


def run(cfg: DictConfig) -> Report:
    """Measure and draw, and write two maps and two tables."""
    clip, by_run = clip_for(cfg)
    images, chosen, cache_dir = pictures_for(cfg)
    found = space(clip, images, chosen, cache_dir)
    pure = purity(found.pictures, found.labels, cfg.k)
    row = measure(clip.name, found, by_run, pure, cfg.k)
    logger.info("%s", asdict(row))
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "clip_map"
    facts = {
        **{key: cfg[key] for key in ("run", "split", "count", "k", "perplexity", "seed", "marks")},
        "clip": clip.name,
        "clip_sha256": clip.fingerprint,
        "image_set": f"{images.name} {images.fingerprint}",
    }
    places, drawn = maps(cfg, folder, facts, found, images, chosen)
    tables = {"clip_map": to_csv([row]), "points": to_csv(points(found, chosen, pure, places))}
    for name, table in tables.items():
        write_whole(folder / f"{name}.csv", lambda staged, table=table: staged.write_text(table))  # type: ignore[misc]
    seen = dominant_colours(images.pixels[chosen]).tolist()
    way = closing_gap.measure(found, cfg.k)
    write_table(folder / "closing_gap.csv", {"share": closing_gap.SHARES, **way})
    scrub = closing_gap.film(found, seen, way, folder / f"closing_gap.{cfg.video}", facts, cfg.fps)
    classes = by_class(found, pure)
    told_of = classes if len(classes) <= 2 * EXTREMES else classes[:EXTREMES] + classes[-EXTREMES:]
    measures = [{"measure": MEASURES[key], "value": value} for key, value in asdict(row).items() if key in MEASURES]
    command = command_line("experiments.clip_map", cfg)
    sections = [
        Section("Measured", told(row), table=measures, command=command),
        *drawn,
        Section("The gap closes", CLOSING, scrubs=[scrub]),
        Section("Purest and least pure classes", f"Means over a class's pictures, k = {cfg.k}.", table=told_of),
    ]
    return Report(folder, "What does a CLIP see in a data set?", sections)


@entry_point("clip_map", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
