"""Which CLIP a map is of, and which pictures."""

from pathlib import Path

import open_clip
import torch
from omegaconf import DictConfig
from torch import Tensor

import lab
from lab import LabError
from lab.clip import Clip, load_clip
from lab.clip.load import CONFIG
from lab.conditioning.clip import ClipVector
from lab.data import ImageSet
from lab.device import usable
from lab.evaluators import clip_of, trained_by
from lab.runs import pictures_of, read_config
from lab.seeding import generator


def clip_for(cfg: DictConfig) -> tuple[Clip, Tensor | None]:
    """The CLIP that is named, else that of the run; and by how much (D,) the run moves texts, where it does."""
    if cfg.clip is not None:
        return named_clip(cfg.clip).to(usable(cfg.device)), None
    task = read_config(cfg.run).task
    if task == "flower_clip":
        folder = trained_by(Path(cfg.run), task)
        if not (folder / CONFIG).is_file():
            raise LabError(f"run={cfg.run}: it holds no CLIP yet; let its training end, or name another, clip=...")
        return load_clip(pretrained=str(folder)).to(usable(cfg.device)), None
    found = None
    if task == "diffusion":
        model = lab.load(cfg.run, cfg.device)
        found, conditioner = clip_of(model, cfg.run), model.conditioner
        if found is not None and isinstance(conditioner, ClipVector) and conditioner.modality_shift:
            return found, (conditioner.mean - conditioner.text_mean).cpu()
    if found is None:
        raise LabError(
            f"run={cfg.run}: no CLIP belongs to this run or knows its data; name one, e.g. "
            "clip=results/flower_clip/clip or clip=ViT-B-32/laion2b_s34b_b79k"
        )
    return found, None


def named_clip(name: str) -> Clip:
    """A CLIP by folder, or by open_clip's MODEL/TAG or MODEL/FILE."""
    if Path(name).is_dir():
        return load_clip(pretrained=str(trained_by(Path(name), "flower_clip")))
    model, _, weights = name.partition("/")
    if not weights or model not in open_clip.list_models():
        advice = "use a folder, or MODEL/TAG as open_clip names them, e.g. ViT-B-32/laion2b_s34b_b79k"
        raise LabError(f"clip={name}: there is no such CLIP; {advice}")
    return load_clip(model, weights)


def pictures_for(cfg: DictConfig) -> tuple[ImageSet, Tensor, str]:
    """The set that a run was trained on, which of its pictures are shown (N,), and where vectors of it are kept.

    Raises LabError for a set without classes, and where it has fewer pictures than are asked for.
    """
    images = pictures_of(cfg.run, cfg.split, cfg.data)
    if not images.class_names:
        raise LabError(f"run={cfg.run}: its data {images.name} have no classes, whose names a map shows")
    if cfg.count is not None and cfg.count > len(images):
        raise LabError(f"count={cfg.count}: split={cfg.split} has {len(images)} pictures; null takes all")
    shown = len(images) if cfg.count is None else cfg.count
    if cfg.k >= shown:
        raise LabError(f"k={cfg.k}: each of {shown} pictures has {shown - 1} neighbours; use fewer, or a larger count")
    chosen = torch.randperm(len(images), generator=generator(cfg.seed, "clip map"))[:shown].sort().values
    points = shown + len(images.labels[chosen].unique())
    if cfg.perplexity >= points:
        raise LabError(f"perplexity={cfg.perplexity:g}: use less than the {points} points of the map")
    return images, chosen, cfg.data.cache_dir or read_config(cfg.run).data.cache_dir
