"""Which samples an evaluation wants, how they are made and where they are kept, and how long that will take."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lab.conditioning import ClipConditioner
from lab.config import compose
from lab.data import ImageSet
from lab.errors import LabError
from lab.evaluation.agreement import COLOUR_PROMPTS
from lab.evaluation.cas import cas_seconds
from lab.evaluation.drawing import draw, estimate
from lab.evaluation.worth import floor_pictures
from lab.model import DiffusionModel
from lab.parts import Parts

logger = logging.getLogger(__name__)
GUIDANCE = ("guidance_scale", "guidance_interval")
SETTINGS = (*GUIDANCE, "num_inference_steps", "sampler", "spacing", "seed", "batch_size")
USUAL_N = 2040
# Each has a folder of its own.
APART = ("n", "num_inference_steps", "sampler", "spacing", "seed", "guidance_interval", "neighbours")


@dataclass(frozen=True)
class Plan:
    """Which samples are wanted, how they are made, and where they are kept."""

    made: Path  # the folder of the samples
    folder: Path  # that of what is found of them: in spaces other than the judge's another
    asked: dict[str, Any]  # settings of `DiffusionModel.sample`
    facts: dict[str, Any]  # all that samples depend on
    classes: Tensor  # (N,) that are asked for
    further: Tensor  # (M,) of the samples that CAS takes beyond these
    cas_n: int  # samples of CAS; 0: none
    a_colour: int  # samples of each colour prompt

    @property
    def kept(self) -> Parts:
        return Parts(self.made, self.facts)

    @property
    def colours(self) -> Parts:
        return Parts(self.made / "colours", {**self.facts, "prompts": COLOUR_PROMPTS, "count": self.a_colour})

    @property
    def kept_further(self) -> Parts:
        return Parts(self.made / "cas", {**self.facts, "cas_n": self.cas_n})

    def seconds(self, model: DiffusionModel) -> float:
        """What sampling will take in one process."""
        others = [(self.a_colour * len(COLOUR_PROMPTS), self.colours), (len(self.further), self.kept_further)]
        return estimate(model, self.classes, self.asked, self.kept, others)

    def samples_for_cas(self, model: DiffusionModel, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and classes of `cas_n` samples: of these, which are numbers 0 to N, and of further ones."""
        if len(self.further):
            more = draw(model, self.further, self.asked, self.kept_further, first=len(labels))
            pixels, labels = torch.cat([pixels, more[0]]), torch.cat([labels, more[1]])
        return pixels[: self.cas_n], labels[: self.cas_n]


def plan_of(cfg: DictConfig, model: DiffusionModel, train: ImageSet) -> Plan:
    """Samples of classes as frequent as in training; LabError where CAS would take more than there are pictures."""
    if cfg.cas_n is not None and not cfg.cas_steps:
        raise LabError(f"cas_n={cfg.cas_n}: nothing learns from them; add cas_steps")
    cas_n = (cfg.cas_n or cfg.n) if cfg.cas_steps else 0
    if cas_n > len(train):
        raise LabError(f"cas_n={cas_n}: as many training pictures are learned from beside, and there are {len(train)}")
    asked: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(SETTINGS)))
    asked["guidance_scale"] = model.sampling.guidance_scale if cfg.guidance_scale is None else cfg.guidance_scale
    facts = {**model.facts_of(asked), "n": cfg.n, "data": train.fingerprint}
    order, _ = floor_pictures(train, max(cfg.n, cas_n), cfg.seed)
    classes, further = train.labels[order[: cfg.n]], train.labels[order[cfg.n :]]
    a_colour = cfg.colour_count if isinstance(model.conditioner, ClipConditioner) else 0
    folders = folders_of(cfg, asked["guidance_scale"], usual_n(len(train)))
    return Plan(*folders, asked, facts, classes, further, cas_n, a_colour)


def usual_n(train: int) -> int:
    """Samples where nobody says otherwise: no more than leave as many training pictures for the reference."""
    return min(USUAL_N, train // 2)


def folders_of(cfg: DictConfig, guidance_scale: float, n: int) -> tuple[Path, Path]:
    """Where samples lie, and what is found of them: by guidance scale, and what else is not as usual, as n samples."""
    if cfg.out is not None:
        return Path(cfg.out), Path(cfg.out)
    usual = {**compose("evaluate", []), "n": n}
    name = "_".join([f"{guidance_scale:g}", *(f"{key}-{cfg[key]}" for key in APART if cfg[key] != usual[key])])
    name = re.sub(r"[^\w.+-]+", "", name.replace(",", "-"))
    space = "" if cfg.space == "judge" else f"_{cfg.space.replace('/', '_')}"
    made = Path(cfg.run) / "evaluation" / name
    return made, made.with_name(name + space)


def tell_time(cfg: DictConfig, plan: Plan, sampling: float, comparing: float, held_out: ImageSet) -> None:
    """How long it will take, before it begins."""
    count = len(plan.classes) + len(plan.further)
    text = f"{count} samples: about {sampling / 60:.0f} minutes; features: about {comparing / 60:.0f}"
    if cfg.cas_steps:
        minutes = cas_seconds(held_out, cfg.cas_steps) / 60
        text += f"; classifiers for CAS: about {minutes:.0f} minutes each, of two at most"
    logger.info("%s", text)
