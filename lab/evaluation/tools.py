"""With what a run is evaluated: the judge that knows its classes, and the space that is asked for."""

import logging

from omegaconf import DictConfig

from lab.clip import Clip
from lab.data import ImageSet
from lab.errors import LabError
from lab.evaluation.spaces import (
    FeatureSpace,
    clip_space,
    inception_space,
    judge_space,
    open_clip_space,
    timm_space,
)
from lab.evaluators import judge_of
from lab.judging import Judge
from lab.model import DiffusionModel

logger = logging.getLogger(__name__)
NAMED = ("timm", "open_clip")  # spaces with a name behind a slash


def check_space(space: str) -> None:
    """LabError for a space that there is not."""
    kind, _, name = space.partition("/")
    if space not in ("judge", "clip", "inception") and not (kind in NAMED and name):
        raise LabError(f"space={space}: use judge, clip, inception, timm/NAME or open_clip/NAME/WEIGHTS")


def judge_for(cfg: DictConfig, train: ImageSet, held_out: ImageSet) -> Judge | None:
    """The judge that is named, else the reference one; None where there is none, and another space is asked for.

    One that was held out of other pictures is warned of: it may have learned some of these.
    Raises LabError for a judge of other classes, and without one for space=judge.
    """
    judge = judge_of(train.class_names, cfg.judge)
    if judge is not None:
        of, content = judge.note.get("image_set"), judge.note["held_out"].get("fingerprint")
        if of != held_out.name or (judge.image_size == held_out.image_size and content != held_out.fingerprint):
            logger.warning("the judge's %.1f %% are of other held-out pictures, and it may have learned some of these "
                           "(%s)", 100 * judge.held_out["top1"], held_out.name)  # fmt: skip
        return judge
    if cfg.space != "judge":
        return None
    if not train.class_names:
        advice = "use space=inception, timm/NAME or open_clip/NAME/WEIGHTS"
        raise LabError(f"space=judge: {train.name} has no classes that a judge could learn; {advice}")
    advice = "python -m lab.train +experiment=judge with the run's data trains one"
    raise LabError(f"judge=...: none is kept that knows the classes of {train.name}; {advice}, or name another space")


def space_of(cfg: DictConfig, judge: Judge | None, clip: Clip | None, model: DiffusionModel) -> FeatureSpace:
    """Where pictures are compared; LabError where its weights cannot be had."""
    kind, _, name = cfg.space.partition("/")
    if kind == "judge":
        assert judge is not None  # `judge_for` has seen to it
        return judge_space(judge)
    if kind == "clip":
        if clip is None:
            raise LabError("space=clip: no CLIP knows this run's data; use another space")
        return clip_space(clip)
    if kind == "inception":
        return inception_space(model.device)
    return (timm_space if kind == "timm" else open_clip_space)(name, model.device)
