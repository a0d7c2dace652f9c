"""What does guidance do? python -m experiments.cfg_sweep run=results/class_cond sweeps its scale from -10 to 10.

The same noise and the same conditions throughout: u + s (c - u), from pushing away over ignoring to exaggerating.
"""

from omegaconf import DictConfig

from experiments.sweep_report import Kind, check_sweep, finish, run_sweep
from lab.cli import entry_point

KIND = Kind(
    name="cfg_sweep",
    knob="guidance_scale",
    other="rescale_phi",
    label="guidance scale",
    question="What does guidance do?",
    text="At 0 the condition is ignored, at 1 the network is followed as it is. Above, what sets the condition apart "
    "is exaggerated: more faithful, more saturated, less diverse. Below 0 the picture is pushed away from it.",
)


@entry_point("cfg_sweep", lambda cfg: check_sweep(cfg, KIND))
def main(cfg: DictConfig) -> None:
    """Sweep, and write a video, stills, curves, a table and a page."""
    folder, _, sections = run_sweep(cfg, KIND)
    finish(folder, KIND, sections)


if __name__ == "__main__":
    main()
