"""What generated pictures are worth, in numbers: each with its n, its feature space, and what real pictures get."""

from lab.evaluation.memorisation import Audit, audit, nearest
from lab.evaluation.metrics import density_coverage, fid, kid, precision_recall
from lab.evaluation.spaces import (
    FeatureSpace,
    clip_space,
    inception_space,
    judge_space,
    open_clip_space,
    pixel_space,
    timm_space,
)

__all__ = [
    "Audit",
    "FeatureSpace",
    "audit",
    "clip_space",
    "density_coverage",
    "fid",
    "inception_space",
    "judge_space",
    "kid",
    "nearest",
    "open_clip_space",
    "pixel_space",
    "precision_recall",
    "timm_space",
]
