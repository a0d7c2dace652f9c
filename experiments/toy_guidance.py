"""What does guidance do to a distribution? python -m experiments.toy_guidance shows it; no run is needed.

Classes of a plane are mixtures of Gaussians that overlap, whose ideal denoisers have closed forms. The lab's guidance
and its DDIM draw from them at many scales, from the same noise each, as figure 2 of Ho & Salimans 2021 shows at a few.
What is seen is guidance's own doing: there is no network to be at fault.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from experiments.common import Report, check_film, plain, write_table
from experiments.mixture import Mixture
from experiments.plane import MARKERS, Plane
from experiments.sweeps import nearest, values_of
from lab import LabError
from lab.cli import entry_point
from lab.commands import command_line
from lab.config import check_types
from lab.diffusion import SAMPLERS, Guidance, NoiseSchedule
from lab.render import Scrub, Section, grid, save_image, save_video
from lab.render.moving import MovingCurves, beside
from lab.seeding import noise

logger = logging.getLogger(__name__)
LABEL, SAMPLER = "guidance scale", "ddim"
SURE = 0.9  # a class posterior above it leaves little doubt
SIDE, CURVES, STILL = 640, (500, 640), 380  # px
FARTHEST = 1000  # a guidance scale, a mean
STILLS = (-2, 0, 1, 3, 5, 10)  # scales that are called out, as far as the sweep has them
MEASURES = {  # what is told of each scale; panels have these titles
    "sure": f"share of points surely of their class (posterior > {SURE:g})",
    "inside": "share of points where their class really is",
    "spread": "spread within a class (std)",
    "distance": "distance between the classes' means",
    "posterior": "posterior of the class that was asked for, mean",
}
LEAD = (
    "Classes that overlap, and their ideal denoisers in closed form: what is seen here is what guidance does, and no "
    "network's error. At 0 the class is ignored, at 1 the points follow it; above, it is set apart from the others."
)
MEANT = (
    f"A point is surely of its class (sure) where that class's posterior exceeds {SURE:g}; the class really is "
    "(inside) where 95 % of the points of one of its components lie. Where classes overlap, guidance buys certainty "
    "with diversity, and then with truth: beyond telling them apart where they are, it drives them apart."
)
TYPES: dict[str, Any] = {
    "means": Sequence[Sequence[Sequence[float]]],
    "values": Sequence[float] | None,
    **dict.fromkeys(("std", "first", "last", "fps"), float),
    **dict.fromkeys(("count", "points", "num_inference_steps", "seed"), int),
    **dict.fromkeys(("video", "out"), str),
}


def check(cfg: DictConfig) -> None:
    """LabError for classes, scales, numbers and videos that cannot be."""
    check_types(cfg, TYPES)
    check_classes(cfg)
    values = values_of(cfg)
    if max(map(abs, values)) > FARTHEST or len(set(values)) < len(values):
        key = "values" if cfg["values"] is not None else "first, last, points"
        raise LabError(f"{key}: use guidance scales from {-FARTHEST} to {FARTHEST}, each once")
    if cfg.count < 2:
        raise LabError(f"count={cfg.count}: use at least 2, or a class has no spread")
    steps, most = cfg.num_inference_steps, NoiseSchedule().timesteps
    if not 1 <= steps <= most:
        raise LabError(f"num_inference_steps={steps}: use 1 to {most}, the schedule's time steps")
    check_film(cfg)


def check_classes(cfg: DictConfig) -> None:
    """LabError for means and a std that make no classes in the plane."""
    if not 2 <= len(cfg.means) <= len(MARKERS):
        raise LabError(f"means: {len(cfg.means)} classes; name 2 to {len(MARKERS)}, e.g. [[[-1, 0]], [[1, 0], [2, 1]]]")
    for number, places in enumerate(cfg.means, start=1):
        if not places or not all(len(place) == 2 and abs(place[0]) + abs(place[1]) <= FARTHEST for place in places):
            told = "name its components as [x, y] near the origin, e.g. [[-1, 0]]"
            raise LabError(f"means: class {number} is {places}; {told}")
    if not 0.01 <= cfg.std <= 100:
        raise LabError(f"std={cfg.std:g}: use 0.01 to 100")


@torch.inference_mode()
def draw(mixture: Mixture, values: Sequence[float], count: int, num_inference_steps: int, seed: int) -> Tensor:
    """`count` points of each class at each of V scales, one batch, the same noise for every scale: (V, C, N, 2)."""
    classes, schedule = len(mixture.weights), NoiseSchedule()
    start = noise((2, 1, 1), seed, range(classes * count)).double()
    labels = torch.arange(classes).repeat_interleave(count).repeat(len(values))
    scales = torch.tensor(values, dtype=torch.float64).repeat_interleave(classes * count)
    denoise = mixture.denoiser(schedule, labels, Guidance(scales))
    x = start.repeat(len(values), 1, 1, 1)
    times = schedule.spaced(num_inference_steps)
    for state in SAMPLERS[SAMPLER](denoise, x, schedule, times, lambda step: start):  # no fresh noise is asked for
        x = state.x_next
    return x.view(len(values), classes, count, 2)


def measure(mixture: Mixture, points: Tensor) -> dict[str, list[float]]:
    """What MEASURES names of points (V, C, N, 2), a number for each of V scales."""
    labels = torch.arange(points.shape[1]).repeat_interleave(points.shape[2])  # (C N,): what was asked for
    told: dict[str, list[float]] = {name: [] for name in MEASURES}
    for of_scale in points:
        flat, means = of_scale.flatten(0, 1), of_scale.mean(dim=1)
        posterior = mixture.class_posterior(flat).gather(1, labels[:, None])
        told["sure"].append(float((posterior > SURE).double().mean()))
        told["inside"].append(float(mixture.inside(flat, labels).double().mean()))
        told["spread"].append(float((of_scale - means[:, None]).square().mean().sqrt()))
        told["distance"].append(float(torch.pdist(means).mean()))
        told["posterior"].append(float(posterior.mean()))
    return told


def conclusion(values: Sequence[float], measured: Mapping[str, Sequence[float]]) -> str:
    """How many points are surely of their class, and how many where it is, at the scales that are called out."""
    told = [
        f"at {values[i]:g}, {100 * measured['sure'][i]:.0f} % and {100 * measured['inside'][i]:.0f} %"
        for i in nearest(values, (0, 1, 3, 10))
    ]
    return f"Points that are surely of their class, and points that lie where it really is: {'; '.join(told)}."


def pictures(
    cfg: DictConfig,
    mixture: Mixture,
    values: Sequence[float],
    points: Tensor,
    measured: Mapping[str, Sequence[float]],
    facts: Mapping[str, Any],
) -> Scrub:
    """Writes the video, stills and curves; the video with its slider."""
    folder = Path(cfg.out)
    # Far below 0 and above 1 points go far out: most are shown, and each frame says how many are not.
    widest = 2 * (float(mixture.means.abs().max()) + 3 * mixture.std)
    reach = min(1.05 * float(np.quantile(points.abs().amax(dim=3), 0.99)), widest)
    panels = {MEASURES[name]: numbers for name, numbers in measured.items() if name != "posterior"}
    curves, plane, small = (
        MovingCurves(values, panels, LABEL, CURVES),
        *(Plane(mixture, reach, px) for px in (SIDE, STILL)),
    )
    titles = [f"{LABEL} = {value:g}" for value in values]
    frames = (beside(plane.at(points[i], title), curves.at(i)) for i, title in enumerate(titles))
    path = folder / f"toy_guidance.{cfg.video}"
    size = save_video(frames, path, facts, cfg.fps)
    stills = [small.at(points[i], titles[i]) for i in nearest(values, STILLS)]
    save_image(grid(stills, columns=min(3, len(stills)), cell=STILL), folder / "stills.png", facts)
    save_image(curves.plain, folder / "curves.png", facts)
    return Scrub(path, size, "the same noise at every scale", titles, cfg.fps, nearest(values, [1])[0])


def run(cfg: DictConfig) -> Report:
    """Draw, measure, and write a video, stills, curves and a table."""
    values, folder = values_of(cfg), Path(cfg.out)
    mixture = Mixture(plain(cfg.means), cfg.std)
    points = draw(mixture, values, cfg.count, cfg.num_inference_steps, cfg.seed)
    measured = measure(mixture, points)
    write_table(folder / "toy_guidance.csv", {"guidance_scale": values, **measured})
    facts = {key: plain(cfg[key]) for key in ("means", "std", "count", "num_inference_steps", "seed")}
    facts |= {"sampler": SAMPLER, "guidance_scale": values}
    scrub = pictures(cfg, mixture, values, points, measured, facts)
    told = [
        {LABEL: values[i], **{name: numbers[i] for name, numbers in measured.items()}} for i in nearest(values, STILLS)
    ]
    found = conclusion(values, measured)
    logger.info("%s", found)
    stills, contours = folder / "stills.png", "contours of each class, which for a lone component are at 1 and 2 std"
    sections = [
        Section(
            "The sweep", f"{LEAD}\n\n{found}", scrubs=[scrub], command=command_line("experiments.toy_guidance", cfg)
        ),
        Section("Stills", images=[(stills, contours)]),
        Section("Measured", MEANT, images=[(folder / "curves.png", "over all points of a scale")], table=told),
    ]
    return Report(folder, "What does guidance do to a distribution?", sections)


@entry_point("toy_guidance", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
