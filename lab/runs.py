"""Runs on disk: a folder with config.yaml, log.csv, samples/ and checkpoints/, and how to get a model from it."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lab import checkpoint
from lab.conditioning import ClipVector
from lab.config import build, check_keys
from lab.errors import LabError
from lab.folders import absent, remove_empty
from lab.model import DiffusionModel
from lab.render.provenance import write_whole
from lab.sampling import SamplingDefaults

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
OWN_CLIP = "clip"  # folder of a run that holds the CLIP it was trained with
REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"

# What may change when a run is continued: how long and how it is computed, how it is looked at, where files lie.
WATCHING = ("log_every", "preview_every", "save_every", "keep", "trackers")
COMPUTING = ("precision", "compile", "accumulation")
FREE = {
    "resume",
    "training.steps",
    "image_set",  # images may come and go, but not unseen: see `refuse_changes`
    *(f"{part}.{key}" for part in ("training", "clip_training") for key in (*WATCHING, *COMPUTING)),
    *(f"preview.{key}" for key in ("classes", "prompts", "count")),
    *(f"sampling.{field.name}" for field in fields(SamplingDefaults)),
    *(f"data.{key}" for key in ("root", "cache_dir", "workers", "download")),
}
# What training fills in from the data and CLIP; it may not change either, once it is there.
FILLED_IN = {f"conditioning.{key}" for key in ("dim", "fingerprint", "class_names")}
NEEDED = ("task", "data", "autoencoder", "conditioning", "model", "diffusion", "sampling")


def build_model(cfg: DictConfig, empty: bool = False) -> DiffusionModel:
    """A model with fresh weights, from a resolved config (conditioning's dim and names filled in).

    empty: weights without memory, to be loaded, or to see whether the network can be built.
    """
    with torch.device("meta") if empty else contextlib.nullcontext():
        autoencoder, conditioner = build(cfg.autoencoder), build(cfg.conditioning)
        network = build(
            cfg.model,
            in_channels=autoencoder.latent_channels,
            sample_size=cfg.data.image_size // autoencoder.factor,
            condition_dim=conditioner.dim,
        )
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
    cfg = _read(path)
    missing = [key for key in NEEDED if key not in cfg]
    if missing:
        raise LabError(f"{path}: damaged, it has no {missing[0]}; restore the file, or train anew")
    return cfg


def _read(path: Path) -> DictConfig:
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


def load(run: str | Path, device: str | None = None, weights: str = "weights") -> DiffusionModel:
    """The model of a run, ready to sample: `lab.load("results/class_cond").sample(classes=["rose"])`.

    weights: "weights" are the averaged ones, "raw" the trained ones. device: CUDA where there is one.
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
    tensors = {key.removeprefix("model."): value for key, value in found.tensors(weights).items()}
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise LabError(f"{found.path}: does not fit the model that {Path(run) / CONFIG} describes") from error
    if isinstance(model.conditioner, ClipVector) and model.conditioner.pretrained == "flower_clip":
        model.conditioner.pretrained = str(_own_clip(Path(run), cfg.clip_model))
    model.provenance = {"run": str(run), "step": found.step, "weights_sha256": found.fingerprint(weights)}
    return _on_device(model, device).eval()


def _on_device(model: DiffusionModel, device: str | None) -> DiffusionModel:
    """The model on a device, by default CUDA where there is one."""
    try:
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:  # no such device, or torch was built without it
        raise LabError(f"device={device}: cannot be used here ({str(error).splitlines()[0]})") from error
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _own_clip(run: Path, clip_model: str) -> Path:
    """The flower_clip that a run was trained with: its own, or where it has none the reference one."""
    return run / OWN_CLIP if (run / OWN_CLIP).is_dir() else REFERENCE / clip_model


def clip_trained_on(folder: Path) -> str | None:
    """Name of the set that the flower_clip in `folder` was trained on; None where there is none."""
    note = folder / "open_clip_config.json"
    if not note.is_file():
        return None
    name: str | None = json.loads(note.read_text()).get("training", {}).get("image_set")
    return name


def refuse_changes(cfg: DictConfig, run_dir: Path) -> None:
    """LabError naming the first setting in which `cfg` differs from the run that `run_dir` already holds.

    Other images under the same settings are warned of.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        return
    old, new = (OmegaConf.to_container(c, resolve=True) for c in (_read(path), cfg))
    for key, was, now in _differences(old, new):
        if key == "image_set" and was and now:
            logger.warning("%s: started with the images %s, and goes on with %s", run_dir, was, now)
        if key not in FREE and not (key in FILLED_IN and (not was or not now)):
            raise LabError(
                f"{key}={now}: the run in {run_dir} was started with {was}; "
                f"use that to go on with it, or another hydra.run.dir"
            )


@contextlib.contextmanager
def alone_in(run_dir: Path) -> Iterator[None]:
    """Holds the run's folder for this command (all its processes); LabError where another one trains in it."""
    if int(os.environ.get("RANK", 0)) > 0:  # the first process holds it
        yield
        return
    made = absent(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise LabError(f"{run_dir}: another process is training there; wait, or use another hydra.run.dir") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps it while it is held, and takes it away itself
            (run_dir / ".lock").unlink()
        lock.release()
        remove_empty(made)


def write_config(cfg: DictConfig, run_dir: Path) -> None:
    """Write the run's resolved configuration, from which `load` builds its model."""
    text = OmegaConf.to_yaml(cfg, resolve=True)
    write_whole(run_dir / CONFIG, lambda staged: staged.write_text(text))


def _differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [(path, old, new)]
