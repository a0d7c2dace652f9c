"""What does rescaling guidance do? python -m experiments.phi_sweep run=results/class_cond sweeps phi from -10 to 10.

At a fixed scale s, guided output is multiplied by 1 + phi (r - 1), r = std(conditional) / std(guided) of each sample
(Lin et al. 2023, eq. 14-16): phi = 0 leaves it, 1 gives it the conditional spread, 1 / (1 - r) makes it vanish.
"""

from dataclasses import replace

import matplotlib.style
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from experiments.common import Report
from experiments.expected import Expected
from experiments.sweep_report import Kind, check_sweep, run_sweep
from experiments.sweeps import Swept, called_out
from lab import LabError
from lab.cli import entry_point
from lab.quality import edge_energy
from lab.render import Section, figure_image, save_image, style
from lab.runs import read_config

KIND = Kind(
    name="phi_sweep",
    knob="rescale_phi",
    other="guidance_scale",
    label="phi",
    question="What does rescaling guidance do?",
    text="Guidance spreads the network's output; phi takes that back (above 0) or doubles it (below). The article's "
    "pictures: blurred as watercolour at -10, outlines too strong and shapes that break at 10.",
    expected=(
        Expected("the article: blurred at -10", "edge_energy", -10, False, 0),
        Expected("the article: outlines too strong at 10", "edge_energy", 10, True, 0),
        Expected("the article: shapes break at 10", "similarity", 10, False, 0),
        Expected("Lin et al.: less saturated with phi 0.7 or so", "saturation", 0.75, False, 0),
    ),
)
CURVES = (-10, -5, -1, 0, 1, 5, 10)  # values of phi whose gain is drawn


def ratio_of(swept: Swept) -> Tensor:
    """r by evaluation (K,), means over pictures; NaN where one branch was enough.

    It is much the same for every phi; that of phi nearest to 0 is undisturbed by what phi does.
    """
    return swept.ratio[called_out(swept, [0])[0]].flatten(0, 1).nanmean(dim=0)


def gains(swept: Swept) -> Image.Image:
    """r by evaluation, and the gain that each phi makes of it; means over pictures."""
    ratio = ratio_of(swept)
    with matplotlib.style.context(style(), after_reset=True):
        figure = Figure(figsize=(8, 3.6))
        left, right = figure.subplots(1, 2)
        left.plot(range(1, len(ratio) + 1), ratio)
        left.axhline(1, color="#8a8a8a", linewidth=0.8, linestyle="--")
        left.set(xlabel="evaluation, from noise to picture", ylabel="r", title="r = std(c) / std(guided)")
        for number in called_out(swept, CURVES):
            gain = swept.gain[number].flatten(0, 1).nanmean(dim=0)
            right.plot(range(1, len(gain) + 1), gain, label=f"phi {swept.values[number]:g}")
        right.axhline(0, color="#8a8a8a", linewidth=0.8, linestyle="--")
        right.set(xlabel="evaluation, from noise to picture", ylabel="gain", title="1 + phi (r - 1)")
        right.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return figure_image(figure)


def told(swept: Swept, prediction_type: str) -> str:
    """What r was, the phi at which the gain would vanish, and why it may be another than the article's."""
    ratio = ratio_of(swept)
    known = ratio[torch.isfinite(ratio)]
    if not len(known):
        return "Guidance evaluated one branch alone, so that r is not known and phi did nothing."
    low, high = float(known.min()), float(known.max())
    words = f"r lies between {low:.2f} and {high:.2f} on the way"
    if low < 1:
        words += f"; the gain would vanish at phi = {1 / (1 - low):.1f} where r is smallest, and is negative beyond"
    why = (
        " Of a network that predicts eps, r would be expected near 1 where there is most noise, since eps has the same "
        f"spread whatever is asked for. This one predicts {prediction_type}, and r is smallest there: shapes would be "
        "expected to break at a smaller phi than in the article, if its network predicted eps."
    )
    early = float(ratio[0]) == low
    edges = torch.stack([edge_energy(images.flatten(0, 1)).mean() for images in swept.images])
    strongest = swept.values[int(edges.argmax())]
    outlines = f"Outlines are strongest at phi = {strongest:g}."
    return f"{words}. {outlines}" + why * (prediction_type != "eps" and low < 1 and early)


def check(cfg: DictConfig) -> None:
    """LabError for what no sweep can have, and for the one scale at which phi does nothing."""
    check_sweep(cfg, KIND)
    if cfg.guidance_scale == 1:
        raise LabError("guidance_scale=1: r is 1 there and phi does nothing; use another, e.g. 5")


def run(cfg: DictConfig) -> Report:
    """Sweep, and write a video, stills, curves, gains and a table."""
    report, swept = run_sweep(cfg, KIND)
    path = report.folder / "gains.png"
    save_image(gains(swept), path, {"run": cfg.run, "guidance_scale": cfg.guidance_scale, "rescale_phi": swept.values})
    text = told(swept, str(read_config(cfg.run).diffusion.prediction_type))
    gain = Section("Gain", text, images=[(path, "means over all pictures")])
    return replace(report, sections=[*report.sections, gain])


@entry_point("phi_sweep", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
