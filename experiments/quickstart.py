"""What does the lab do? python -m experiments.quickstart trains a text-conditional model in minutes and shows it.

On the built-in petals, which need no download: first a small CLIP, then a diffusion model on its image vectors,
then flowers for prompts, all in results/quickstart/index.html.
"""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

import lab
from lab.cli import entry_point
from lab.clip.colours import COLOURS, dominant_colours
from lab.model import DiffusionModel
from lab.render import Section, grid, page, save_image, to_uint8
from lab.runs import CLIP_TRAINING
from lab.train import check, train
from lab.training.log import read_rows

logger = logging.getLogger(__name__)

PROMPTS = {  # what is asked for, and the colour that should come
    "a red flower with five petals": "red",
    "an orange flower with six petals": "orange",
    "a yellow flower with eight petals": "yellow",
    "a green flower with three petals": "green",
    "a blue flower with four petals": "blue",
    "a purple flower with seven petals": "purple",
    "a pink flower with ten petals": "pink",
    "a white flower with twelve narrow petals": "white",
}
SAMPLES = 8  # of each prompt
SCALES = (-2.0, 0.0, 1.0, 2.0, 4.0, 8.0)


def provenance(model: DiffusionModel) -> dict[str, Any]:
    """What every sheet of the page was made with."""
    return {**model.facts_of({}), "seed": 0}


def prompt_sheet(model: DiffusionModel, path: Path) -> Section:
    """Samples of each prompt, with the share of them whose dominant colour is the one that was asked for."""
    samples = model.sample(list(PROMPTS), count=SAMPLES, output="tensor")
    assert isinstance(samples, Tensor)
    seen = [COLOURS[index] for index in dominant_colours(torch.from_numpy(to_uint8(samples))).tolist()]
    asked = [colour for colour in PROMPTS.values() for _ in range(SAMPLES)]
    hits = [a == s for a, s in zip(asked, seen, strict=True)]
    share = [sum(hits[i : i + SAMPLES]) for i in range(0, len(hits), SAMPLES)]
    facts = {**provenance(model), "prompts": list(PROMPTS), "count": SAMPLES}
    save_image(grid(samples, columns=SAMPLES, row_labels=list(PROMPTS), cell=96), path, facts)
    table = [
        {"prompt": prompt, "of the colour asked for": f"{n} of {SAMPLES}"}
        for prompt, n in zip(PROMPTS, share, strict=True)
    ]
    return Section(
        "Prompts",
        f"Text went through a CLIP that this run trained itself. {sum(hits)} of {len(hits)} flowers have the colour "
        "that was asked for, as measured by the most frequent colour name in the middle of the picture.",
        images=[(path, f"{SAMPLES} samples of each prompt, guidance {model.sampling.guidance_scale:g}")],
        table=table,
        command=f"python -m lab.sample run={path.parent} prompts='[\"a red flower with five petals\"]' count={SAMPLES}",
    )


def guidance_sheet(model: DiffusionModel, path: Path) -> Section:
    """The same noise at several guidance scales, two prompts."""
    prompts = list(PROMPTS)[:1] + list(PROMPTS)[4:5]
    scales = torch.tensor(SCALES).repeat(len(prompts))
    everywhere = (0.0, 1.0)  # so that 0 is no guidance at all
    samples = model.sample(
        prompts, count=len(SCALES), guidance_scale=scales, guidance_interval=everywhere, numbers=[0], output="tensor"
    )
    sheet = grid(samples, columns=len(SCALES), row_labels=prompts, column_labels=[f"{s:g}" for s in SCALES])
    asked = {"prompts": prompts, "guidance_scale": list(SCALES), "guidance_interval": everywhere, "numbers": [0]}
    save_image(sheet, path, {**provenance(model), **asked})
    return Section(
        "Guidance",
        "One noise, one prompt a row, guidance scale from left to right: below 0 pushes away from the prompt, "
        "0 ignores it, 1 is the conditional model, more exaggerates.",
        images=[(path, "classifier-free guidance u + s (c - u)")],
    )


def training_section(run_dir: Path) -> Section:
    """The curve of the loss, and what the run cost, the CLIP that was trained for it included."""
    last, clip = read_rows(run_dir / "log.csv")[-1], read_rows(run_dir / CLIP_TRAINING / "log.csv")[-1:]
    speed = f"{float(last['images_per_second']):.0f} images/s at the end, {float(last['epoch']):.1f} epochs"
    cost = [f"{float(row['seconds']) / 60:.1f} minutes" for row in (last, *clip)]
    return Section(
        "Training",
        f"{last['step']} steps, {speed}, in {cost[0]}{f', after {cost[1]} for the CLIP' if clip else ''}.",
        images=[(run_dir / "loss.png", "training loss")],
        command="python -m lab.train +experiment=quickstart",
    )


@entry_point("train", check, first=["+experiment=quickstart"])
def main(cfg: DictConfig) -> None:
    """Train, unless that is done already, and write the page."""
    started, run_dir = time.perf_counter(), Path(HydraConfig.get().runtime.output_dir)
    train(cfg, run_dir)
    model = lab.load(run_dir)
    sections = [
        prompt_sheet(model, run_dir / "prompts.png"),
        guidance_sheet(model, run_dir / "guidance.png"),
        training_section(run_dir),
    ]
    page(run_dir / "index.html", "Flowers from words, from zero", sections)
    logger.info("%.1f minutes; open %s", (time.perf_counter() - started) / 60, run_dir / "index.html")


if __name__ == "__main__":
    main()
