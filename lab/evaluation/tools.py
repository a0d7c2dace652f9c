"""With what a run is evaluated: the judge that knows its classes, and the space that is asked for."""

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

NAMED = ("timm", "open_clip")  # spaces with a name behind a slash


def check_space(space: str) -> None:
    """LabError for a space that there is not."""
    kind, _, name = space.partition("/")
    if space not in ("judge", "clip", "inception") and not (kind in NAMED and name):
        raise LabError(f"space={space}: use judge, clip, inception, timm/NAME or open_clip/NAME/WEIGHTS")


def judge_for(cfg: DictConfig, train: ImageSet) -> Judge | None:
    """The judge that is named, else the reference one; None where there is none, and another space is asked for.

    Raises LabError for a judge of other classes, and without one for space=judge.
    """
    judge = judge_of(train.class_names, cfg.judge)
    if judge is not None or cfg.space != "judge":
        return judge
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
