"""Going on with a run: what may change meanwhile, and who may write into its folder."""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lab.config import compose, parameters_of
from lab.errors import LabError
from lab.folders import absent, remove_empty
from lab.render.provenance import write_whole
from lab.runs import CLIP_TRAINING, CONFIG, OWN_CLIP, read_yaml
from lab.sampling import SamplingDefaults

logger = logging.getLogger(__name__)

# What may change when a run is continued: how long and how it is computed, how it is looked at, where files lie.
WATCHING = ("log_every", "preview_every", "save_every", "keep", "trackers")
COMPUTING = ("precision", "compile", "accumulation")
FREE = {
    "resume",
    "training.steps",
    "image_set",  # images may come and go, but not unseen: see `refuse_changes`
    *(f"{part}.{key}" for part in ("training", "clip_training") for key in (*WATCHING, *COMPUTING)),
    "latents.run",  # where it lies; `latents.fingerprint` says what it is
    *(f"preview.{key}" for key in ("classes", "prompts", "count", "held_out")),
    *(f"sampling.{field.name}" for field in fields(SamplingDefaults)),
    *(f"conditioning.{key}" for key in ("modality_shift", "neighbours", "nearest")),  # how texts are told
    *(f"data.{key}" for key in ("root", "cache_dir", "workers", "download")),
}
# What training fills in from the data and CLIP; it may not change either, once it is there.
TOLD = ("dim", "token_width", "length", "fingerprint", "class_names")
FILLED_IN = {"latents.fingerprint", "reconstruction.fingerprint", *(f"conditioning.{key}" for key in TOLD)}


def refuse_changes(cfg: DictConfig, run_dir: Path) -> None:
    """LabError naming the first setting in which `cfg` differs from the run that `run_dir` already holds.

    Other images under the same settings are warned of.
    """
    for key, was, now in changes(cfg, run_dir):
        if key == "image_set" and was and now:
            logger.warning("%s: started with the images %s, and goes on with %s", run_dir, was, now)
        moved = key == "conditioning.pretrained" and now != "flower_clip"  # which might train another one
        if key not in FREE and not moved:  # where it lies; `conditioning.fingerprint` says what it is
            raise LabError(
                f"{key}={now}: the run in {run_dir} was started with {was}; "
                f"use that to go on with it, or another hydra.run.dir"
            )


def changes(cfg: DictConfig, run_dir: Path) -> list[tuple[str, Any, Any]]:
    """(key, was, is) in which `cfg` differs from the run that `run_dir` holds, but for what is not filled in yet.

    How a CLIP would be trained counts only where one was, and of the lab's own the name of the model not at all.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        return []
    before = read_yaml(path)
    old, new = (OmegaConf.to_container(c, resolve=True) for c in (before, cfg))
    of_no_account = []
    if not any((run_dir / folder).is_dir() for folder in (OWN_CLIP, CLIP_TRAINING)):
        of_no_account.append("clip_training.")
    if all((c.get("conditioning") or {}).get("pretrained") == "flower_clip" for c in (before, cfg)):
        of_no_account.append("conditioning.model")
    return [
        (key, was, now)
        for key, was, now in _differences(old, new)
        if (key not in FILLED_IN or (was and now)) and not key.startswith(tuple(of_no_account))
    ]


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
    """(key, was, is) of what differs; what an older version of the lab had no key for was at its default."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(set(old) | set(new)):
            was = old[key] if key in old else _default(path, key, new)
            found += _differences(was, new.get(key), f"{path}.{key}".lstrip("."))
        return found
    return [] if old == new else [(path, old, new)]


def _default(path: str, key: str, node: dict[str, Any]) -> Any:
    """What the class, or the primary config, has for a key without being told."""
    if "_target_" in node:
        return parameters_of(path, node["_target_"])[key].default
    return OmegaConf.select(compose("train", []), f"{path}.{key}".lstrip("."))
