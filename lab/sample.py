"""python -m lab.sample run=results/class_cond classes='[rose]': pictures and a captioned grid from a trained run."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from PIL import Image

import lab
from lab.cli import entry_point
from lab.conditioning.classes import class_index
from lab.conditioning.clip import tell_texts_by
from lab.config import check_types
from lab.device import Precision
from lab.errors import LabError
from lab.render import grid, read_provenance, save_image
from lab.render.provenance import as_json
from lab.runs import check_run
from lab.sampling import check_guided

logger = logging.getLogger(__name__)


def file_name(number: int, caption: str, seed: int) -> str:
    """E.g. 0003_a-red-flower_seed0.png: sorts in the order of the request and says what it shows."""
    words = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")[:40].rstrip("-")
    return "_".join(part for part in (f"{number:04d}", words, f"seed{seed}.png") if part)


def _made_so(path: Path, facts: dict[str, object]) -> bool:
    """Whether a picture says that it was made with the configuration of these facts."""
    try:
        return bool(read_provenance(path).get("config") == json.loads(as_json(facts))["config"])
    except LabError:  # it says nothing
        return False


def write_samples(
    samples: Sequence[Image.Image], captions: list[str], cfg: DictConfig, facts: dict[str, object]
) -> Path:
    """Each sample as a PNG and all as grid.png, each with its provenance; returns the grid's path."""
    folder = Path(cfg.out) if cfg.out is not None else Path(cfg.run) / "generated"
    path = folder / "grid.png"
    if path.is_file() and not _made_so(path, facts):
        logger.warning("%s: pictures that were made otherwise lie there; those of the same names are replaced", folder)
    for number, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
        about = {**facts, "caption": caption, "number": number}
        save_image(sample, folder / file_name(number, caption, cfg.seed), about)
    columns = cfg.count if 1 < cfg.count <= 12 else None
    save_image(grid(samples, captions=captions if any(captions) else None, columns=columns), path, facts)
    return path


TYPES: dict[str, Any] = {
    "precision": Precision,
    "classes": Sequence[str | int] | None,
    **dict.fromkeys(("prompts", "images"), Sequence[str] | None),
    **dict.fromkeys(("num_inference_steps", "height", "width", "batch_size", "neighbours"), int | None),
    **dict.fromkeys(("guidance_scale", "rescale_phi", "guidance_parallel", "eta"), float | None),
    "guidance_interval": Sequence[float] | None,
    **dict.fromkeys(("run", "sampler", "spacing", "thresholding", "device", "out"), str | None),
    **dict.fromkeys(("count", "seed"), int),
    "weights": Literal["weights", "raw"],
}
GUIDANCE = ("guidance_scale", "rescale_phi", "guidance_interval", "guidance_parallel")
SETTINGS = (
    *("num_inference_steps", *GUIDANCE),
    *("sampler", "spacing", "eta", "thresholding"),
    *("height", "width", "batch_size"),
)


def check(cfg: DictConfig) -> None:
    """LabError for values of the wrong type, and unless `run` is given and is a run."""
    check_types(cfg, TYPES)
    check_run(cfg.run)


@entry_point("sample", check)
def main(cfg: DictConfig) -> None:
    """Sample what the configuration asks for, and write it."""
    model = lab.load(cfg.run, cfg.device, cfg.weights, cfg.precision)
    if cfg.neighbours is not None and cfg.images is not None:
        raise LabError(f"neighbours={cfg.neighbours}: it is for texts, and images are told as they are; leave it out")
    tell_texts_by(model.conditioner, cfg.neighbours)
    check_guided(model.conditioner, {key: cfg[key] for key in GUIDANCE})
    asked: dict[str, Any] = {
        key: None if cfg[key] is None else list(cfg[key]) for key in ("prompts", "classes", "images")
    }
    request: Any = OmegaConf.to_container(cfg)
    settings: dict[str, Any] = {key: request[key] for key in SETTINGS}
    samples = model.sample(**asked, **settings, count=cfg.count, seed=cfg.seed)
    made_with = model.facts_of(settings)
    used = {key: made_with.get(key) for key in settings}
    given = next((names for names in asked.values() if names), [""])
    if asked["classes"]:
        given = [model.conditioner.class_names[class_index(one, model.conditioner.class_names)] for one in given]  # type: ignore[index, arg-type]
    captions = [Path(str(name)).name if asked["images"] else str(name) for name in given for _ in range(cfg.count)]
    of_texts = model.conditioner.telling if cfg.images else {}
    told = {key: value for key, value in model.provenance.items() if key not in of_texts}
    facts = {**told, "seed": cfg.seed, "config": {**request, **used}}
    logger.info("%d samples in %s", len(samples), write_samples(list(samples), captions, cfg, facts).parent)


if __name__ == "__main__":
    main()
