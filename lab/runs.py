"""Runs on disk: a folder with config.yaml, log.csv, samples/ and checkpoints/, and how to get a model from it."""

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lab import checkpoint
from lab.autoencoders import Autoencoder, Identity
from lab.clip.load import training_note
from lab.conditioning import ClipConditioner
from lab.config import build, check_keys
from lab.data import ImageSet
from lab.data.base import Split
from lab.device import Precision, computes_bf16, usable
from lab.errors import LabError
from lab.model import DiffusionModel

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
IDENTITY = "lab.autoencoders.Identity"
OWN_CLIP = "clip"  # folder of a run that holds the CLIP it was trained with
CLIP_TRAINING = "clip_training"  # that CLIP's own log and checkpoints
REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"

NEEDED = ("task", "data", "autoencoder", "conditioning", "model", "diffusion", "sampling")


def build_model(cfg: DictConfig, empty: bool = False) -> DiffusionModel:
    """A model with fresh weights, from a resolved config (conditioning's dim and names filled in).

    empty: weights without memory, to be loaded, or to see whether the network can be built.
    """
    with torch.device("meta") if empty else contextlib.nullcontext():
        autoencoder, conditioner = build(cfg.autoencoder), build(cfg.conditioning)
        sizes = {"in_channels": autoencoder.latent_channels, "sample_size": cfg.data.image_size // autoencoder.factor}
        widths = {"condition_dim": conditioner.dim, "token_dim": conditioner.token_dim}
        try:
            network = build(cfg.model, **sizes, **widths)
        except LabError as error:
            if autoencoder.factor == 1:
                raise
            about = f"data.image_size={cfg.data.image_size} at autoencoder.factor={autoencoder.factor}"
            raise LabError(f"{error} (the latents of {about})") from error
    return DiffusionModel(
        network, conditioner, autoencoder, build(cfg.diffusion), cfg.data.image_size, build(cfg.sampling)
    )


def check_run(run: str | None) -> None:
    """LabError unless `run` is given, and is a run."""
    if run is None:
        raise LabError("run=...: name a folder that python -m lab.train wrote, e.g. run=results/class_cond")
    read_config(run)


def read_config(run: str | Path) -> DictConfig:
    """The resolved config of a run; LabError where the folder is no run."""
    path = Path(run) / CONFIG
    if not path.is_file():
        raise LabError(
            f"run={run}: no {CONFIG} there; name a folder that python -m lab.train wrote, e.g. results/class_cond"
        )
    cfg = read_yaml(path)
    missing = [key for key in NEEDED if key not in cfg]
    if missing:
        raise LabError(f"{path}: damaged, it has no {missing[0]}; restore the file, or train anew")
    return cfg


def read_yaml(path: Path) -> DictConfig:
    """LabError for a file that is no configuration."""
    try:
        cfg = OmegaConf.load(path)
        OmegaConf.resolve(cfg)
    except Exception as error:  # what the file system, YAML and OmegaConf make of a damaged file
        reason = " ".join(str(error).split())
        raise LabError(f"{path}: damaged ({reason}); restore the file, or train anew") from error
    if not isinstance(cfg, DictConfig):
        raise LabError(f"{path}: damaged, it is a list; restore the file, or train anew")
    return cfg


def pictures_of(run: str | Path, split: Split, changes: Mapping[str, Any] | None = None) -> ImageSet:
    """The set that a run was trained on, or what it has not seen; changes: of `data`, e.g. root, None for none.

    Raises LabError where the data are missing.
    """
    data = read_config(run).data
    for key, value in (changes or {}).items():
        if value is not None:
            data[key] = value
    images: ImageSet = build(data).load(split)
    return images


def load(
    run: str | Path, device: str | None = None, weights: str = "weights", precision: Precision = "auto"
) -> DiffusionModel:
    """The model of a run, ready to sample: `lab.load("results/class_cond").sample(classes=["rose"])`.

    weights: "weights" are the averaged ones, "raw" the trained ones. device: CUDA where there is one. precision of
    the network: "auto" is bf16 where the hardware computes it, which leaves pictures alike to 42 dB and more.
    Raises LabError for a folder that is no run of a diffusion model or has no sound checkpoint.
    """
    cfg = read_config(run)
    if cfg.task != "diffusion":
        raise LabError(f"run={run}: it trained task={cfg.task}, and samples come from a diffusion run")
    if weights not in ("weights", "raw"):
        raise LabError(f"weights={weights}: use weights (averaged) or raw")
    check_keys(cfg, "train")
    found = checkpoint.latest(Path(run) / "checkpoints")
    if found is None:
        raise LabError(f"run={run}: no checkpoint in {Path(run) / 'checkpoints'} yet; train it first")
    model = build_model(cfg, empty=True)
    tensors = {key.removeprefix("model."): _single(value) for key, value in found.tensors(weights).items()}
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise LabError(f"{found.path}: does not fit the model that {Path(run) / CONFIG} describes") from error
    if isinstance(model.conditioner, ClipConditioner) and model.conditioner.pretrained == "flower_clip":
        model.conditioner.pretrained = str(_own_clip(Path(run), cfg.clip_model))
    model.origin = {"run": str(Path(run)), "step": found.step, "weights_sha256": found.fingerprint(weights)}
    model = model.to(usable(device)).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    model.precision = precision
    computes_bf16(precision, model.device)  # refuses what is none
    return model


def load_autoencoder(run: str | Path, device: torch.device | str | None = None) -> Autoencoder:
    """The trained autoencoder of a run, averaged weights, frozen: one that trained it, or one in its latents.

    Raises LabError for a folder that is no such run or has no sound checkpoint.
    """
    cfg = read_config(run)
    with torch.device("meta"):
        autoencoder: Autoencoder = build(cfg.autoencoder)
    if isinstance(autoencoder, Identity):
        raise LabError(f"run={run}: it has no autoencoder; python -m lab.train +experiment=vae trains one")
    found = checkpoint.latest(Path(run) / "checkpoints")
    if found is None:
        raise LabError(f"run={run}: no checkpoint in {Path(run) / 'checkpoints'} yet; train it first")
    prefix = "autoencoder." if cfg.task == "autoencoder" else "model.autoencoder."
    held = found.tensors("weights").items()
    tensors = {key.removeprefix(prefix): _single(value) for key, value in held if key.startswith(prefix)}
    try:
        autoencoder.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise LabError(f"{found.path}: does not fit the autoencoder that {Path(run) / CONFIG} describes") from error
    autoencoder.to(usable(device))
    return autoencoder.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload, no-any-return]


def with_autoencoder(cfg: DictConfig, run_dir: Path | None = None) -> DictConfig:
    """The config of a run in latents, or of one that trains their decoder, with the autoencoder of `latents.run`.

    Where that is gone, the one in `run_dir`, which such a run keeps. Raises LabError where neither is there.
    """
    if cfg.task not in ("diffusion", "autoencoder"):
        return cfg
    if cfg.latents.run is None:
        if cfg.task == "diffusion" and cfg.autoencoder["_target_"] != IDENTITY:
            raise LabError(
                "autoencoder: diffusion in latents needs a trained one; leave it out, and give latents.run=results/vae"
            )
        return cfg
    source = read_config(autoencoder_run(cfg, run_dir))
    if source.autoencoder["_target_"] == IDENTITY:
        raise LabError(f"latents.run={cfg.latents.run}: that run has no autoencoder; use one of +experiment=vae")
    if cfg.autoencoder["_target_"] != IDENTITY and cfg.autoencoder != source.autoencoder:
        raise LabError(f"autoencoder: differs from that of latents.run={cfg.latents.run}; leave it out")
    filled: DictConfig = cfg.copy()
    filled.autoencoder = source.autoencoder
    return filled


def autoencoder_run(cfg: DictConfig, run_dir: Path | None = None) -> Path:
    """The folder that a latent run's autoencoder comes from; LabError where there is none."""
    for folder in (Path(cfg.latents.run), run_dir):
        if folder is not None and (folder / CONFIG).is_file() and (folder / "checkpoints").is_dir():
            return folder
    raise LabError(
        f"latents.run={cfg.latents.run}: no trained autoencoder there; python -m lab.train +experiment=vae trains one"
    )


def _single(tensor: Tensor) -> Tensor:
    """In single precision, where `lab.export` has halved it."""
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _own_clip(run: Path, clip_model: str) -> Path:
    """The flower_clip that a run was trained with: its own, or where it has none the reference one."""
    return run / OWN_CLIP if (run / OWN_CLIP).is_dir() else REFERENCE / clip_model


def set_of(cfg: DictConfig) -> str:
    """Name of the set that a run was trained on; "" where its configuration does not say."""
    return str(cfg.get("image_set") or "").rpartition(" ")[0]  # behind it the fingerprint


def clip_trained_on(folder: Path) -> str | None:
    """Name of the set that the flower_clip in `folder` was trained on; None where there is none."""
    name: str | None = training_note(folder).get("image_set")
    return name
