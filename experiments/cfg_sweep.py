"""What does guidance do? python -m experiments.cfg_sweep run=results/class_cond sweeps its scale from -10 to 10.

The same noise and the same conditions throughout: u + s (c - u), from pushing away over ignoring to exaggerating.
"""

from omegaconf import DictConfig

from experiments.common import Report
from experiments.expected import Expected
from experiments.sweep_report import Kind, check_sweep, run_sweep
from lab.cli import entry_point

KIND = Kind(
    name="cfg_sweep",
    knob="guidance_scale",
    other="rescale_phi",
    label="guidance scale",
    question="What does guidance do?",
    text="At 0 the condition is ignored, at 1 the network is followed as it is. Above, what sets the condition apart "
    "is exaggerated: more faithful, more saturated, less diverse. Below 0 the picture is pushed away from it. "
    "The article's video: crushed, unnatural colours at -10, natural flowers of any kind at 0, faithful and saturated "
    "ones at 10.",
    expected=(
        Expected("the article: colours crushed at -10", "clip_fraction", -10, True, 1),
        Expected("the article: unnatural colours at -10", "saturation", -10, True, 0),
        Expected("pushed away from the condition at -10", "similarity", -10, False, 0),
        Expected("the article: at 0 the condition counts less than at 1", "accuracy", 0, False, 1),
        Expected("the article: faithful at 10", "similarity", 10, True, 1),
        Expected("the article: faithful at 10", "accuracy", 10, True, 1),
        Expected("the article: saturated at 10", "saturation", 10, True, 1),
        Expected("Ho and Salimans: less diverse with guidance", "diversity", 5, False, 1),
    ),
)


def check(cfg: DictConfig) -> None:
    """LabError for what no sweep can have."""
    check_sweep(cfg, KIND)


def run(cfg: DictConfig) -> Report:
    """Sweep, and write a video, stills, curves and a table."""
    report, _ = run_sweep(cfg, KIND)
    return report


@entry_point("cfg_sweep", check)
def main(cfg: DictConfig) -> None:
    """Run, and write the page."""
    run(cfg).write()


if __name__ == "__main__":
    main()
