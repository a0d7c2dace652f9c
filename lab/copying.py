"""What lies beside a run's weights, copied with them: configuration, log, sheets, numbers, and its earlier stages."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lab.evaluation.report import results
from lab.runs import CONFIG, read_config

logger = logging.getLogger(__name__)
BEFORE = "before"  # in the copy of a run that went on from another: configuration and log of that one
SHOWN_ON = "of_"  # a sheet's name: this and the diffusion run whose samples it shows
TOLD = (CONFIG, "log.csv")  # of each stage of a training
KEPT = (*TOLD, "loss.png", "loss.png.json")


def copy_files(source: Path, out: Path, names: Sequence[str]) -> None:
    """Files of these names, where they are there; folders are made on the way."""
    for name in names:
        if (source / name).is_file() and (source / name).resolve() != (out / name).resolve():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, out / name)


def copy_before(run: Path, cfg: DictConfig, out: Path) -> None:
    """How an autoencoder was trained before its decoder learned on, and before that."""
    before = run / BEFORE if (run / BEFORE).is_dir() else cfg.latents.run if cfg.task == "autoencoder" else None
    if before is not None and (Path(before) / CONFIG).is_file():
        copy_files(Path(before), out / BEFORE, TOLD)
        copy_before(Path(before), read_config(before), out / BEFORE)


def copy_sheets(run: Path, out: Path, sheets: Sequence[Path]) -> None:
    """These sheets of a run; what `out` had of others goes."""
    names = [f"samples/{path.name}" for path in sheets]
    copy_files(run, out, names + [f"{name}.json" for name in names])
    for path in (*out.glob("samples/step_*.png"), *out.glob(f"samples/{SHOWN_ON}*.png")):
        if f"samples/{path.name}" not in names:
            path.unlink()
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)


def copy_numbers(run: Path, out: Path, of: dict[str, Any]) -> None:
    """What lab.evaluate found of these weights; what `out` had of others goes."""
    found = {path: all(one.get(key) == value for key, value in of.items()) for path, one in results(run).items()}
    current = [str(path.relative_to(run)) for path, fits in found.items() if fits]
    copy_files(run, out, current)
    for path, fits in found.items():
        if not fits:
            logger.warning("%s is of other weights and stays behind: evaluate again", path)
    for path in results(out):
        if str(path.relative_to(out)) not in current:
            path.unlink()
