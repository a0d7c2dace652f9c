"""Training a diffusion model in pixels, or in the latents of a trained autoencoder."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lab.autoencoders import Autoencoder
from lab.clip.load import OWN
from lab.conditioning import ClipConditioner, Conditioner, Unconditional
from lab.conditioning.base import Request
from lab.conditioning.classes import class_index
from lab.config import build
from lab.data import BatchStream, ImageSet, Source
from lab.device import computes_bf16, local_device
from lab.errors import LabError
from lab.latents import LatentStream, fingerprint, set_moments, take_statistics
from lab.model import DiffusionModel
from lab.recipes.flower_clip import own_clip
from lab.recipes.run import run
from lab.runs import CONFIG, autoencoder_run, build_model, load_autoencoder, read_config, set_of, with_autoencoder
from lab.seeding import derive
from lab.training import DiffusionTask, TrainingSettings

logger = logging.getLogger(__name__)
ONE_THING = 16  # samples on a sheet that shows one thing alone
COMPARED_AT_A_TIME = 64  # pictures whose loss is told


def check_diffusion(cfg: DictConfig) -> None:
    """LabError for a network that cannot be built, or a sampler that cannot have that many steps.

    An autoencoder's run that is not there yet is left to `train_diffusion`, which knows the run's folder.
    """
    own = cfg.conditioning.get("pretrained") == "flower_clip"
    if own and cfg.conditioning.model in OWN and cfg.conditioning.model not in ("flower_clip", cfg.clip_model):
        asked = cfg.conditioning.model
        raise LabError(
            f"conditioning.model={asked}: the size of the lab's own CLIP is clip_model; use clip_model={asked}"
        )
    if cfg.latents.crops < 1:
        raise LabError(f"latents.crops={cfg.latents.crops}: use at least 1")
    if cfg.latents.run is not None and not (Path(cfg.latents.run) / CONFIG).is_file():
        return
    model = build_model(with_autoencoder(cfg), empty=True)
    steps, most = model.sampling.num_inference_steps, model.parameterization.schedule.timesteps
    if steps > most:
        raise LabError(f"sampling.num_inference_steps={steps}: use at most diffusion.schedule.timesteps={most}")


def train_diffusion(cfg: DictConfig, run_dir: Path) -> None:
    """A diffusion model on the configured data, conditioning, network and formulas."""
    settings: TrainingSettings = build(cfg.training)
    source: Source = build(cfg.data)
    conditioner: Conditioner = build(cfg.conditioning)
    of_its_own = isinstance(conditioner, ClipConditioner) and conditioner.pretrained == "flower_clip"
    if isinstance(conditioner, ClipConditioner) and not of_its_own:
        _ = conditioner.clip  # before the data is read: its weights may be out of reach
    images = source.load("train")
    if isinstance(conditioner, ClipConditioner) and of_its_own:
        check_preview_classes(cfg, images)
        conditioner.pretrained = str(own_clip(cfg, source, images, run_dir))
    torch.manual_seed(derive(cfg.seed, "conditioner"))
    fitted = conditioner.prepare(images, cfg.data.cache_dir)
    cfg = OmegaConf.merge(cfg, {"conditioning": fitted})  # type: ignore[assignment]
    torch.manual_seed(derive(cfg.seed, "init"))
    model = build_model(cfg)
    model.conditioner, model.precision = conditioner, settings.precision
    stream = BatchStream(images, settings.batch_size, cfg.seed, settings.class_balanced, settings.flip)
    if cfg.latents.run is not None:
        model.autoencoder, stream = into_latents(cfg, run_dir, stream)
        cfg = OmegaConf.merge(cfg, {"latents": {"fingerprint": fingerprint(model.autoencoder)}})  # type: ignore[assignment]
    shown = preview_request(cfg, images.class_names, conditioner)
    compared = compared_streams(cfg, source, stream, model)
    most = min([cfg.preview.held_out, *(len(side.image_set) for side, _ in compared.values())])
    task = DiffusionTask(model, stream, cfg.seed, shown, preview_count(cfg, shown), compared, most)
    run(cfg, task, run_dir, settings)


def compared_streams(
    cfg: DictConfig, source: Source, stream: BatchStream, model: DiffusionModel
) -> dict[str, tuple[BatchStream, Conditioner]]:
    """What has been seen and what has not, in batches alike; {} where nothing is held out, or nobody looks.

    Classes are drawn alike on both sides: those of held-out pictures may be as frequent as they like.
    """
    if not (cfg.preview.held_out and cfg.training.preview_every):
        return {}
    try:
        held_out = source.load("held_out")
    except LabError as error:
        logger.warning("no loss of held-out pictures will be told, which preview.held_out=0 would ask for: %s", error)
        return {}
    classed = all(bool((images.labels >= 0).all()) for images in (held_out, stream.image_set))
    options = (min(stream.batch_size, COMPARED_AT_A_TIME), cfg.seed, classed, stream.flip)
    unseen = model.conditioner.on(held_out, cfg.data.cache_dir)
    if not isinstance(stream, LatentStream):
        sides = [BatchStream(stream.image_set, *options), BatchStream(held_out, *options)]
    else:
        moments = moments_of(cfg, model.autoencoder, held_out)
        sides = [LatentStream(stream.moments, stream.image_set, *options), LatentStream(moments, held_out, *options)]
    if classed:  # a class may have no picture on one side
        sides = [sides[0].among(held_out.labels), sides[1].among(stream.image_set.labels)]
    return {"seen_loss": (sides[0], model.conditioner), "held_out_loss": (sides[1], unseen)}


def into_latents(cfg: DictConfig, run_dir: Path, stream: BatchStream) -> tuple[Autoencoder, LatentStream]:
    """The run's autoencoder, scaled to the set, and its stream of moments in place of images."""
    autoencoder = load_autoencoder(autoencoder_run(cfg, run_dir), local_device())
    images = stream.image_set
    learned_on = set_of(read_config(autoencoder_run(cfg, run_dir)))
    if learned_on != images.name:
        logger.warning("latents.run=%s: learned on %s, not on %s", cfg.latents.run, learned_on, images.name)
    moments = moments_of(cfg, autoencoder, images)
    take_statistics(autoencoder, moments)
    options = (stream.batch_size, stream.seed, stream.class_balanced, stream.flip)
    return autoencoder, LatentStream(moments, images, *options)


def moments_of(cfg: DictConfig, autoencoder: Autoencoder, images: ImageSet) -> Tensor:
    """The moments of a set, as `set_moments` gives them."""
    started = time.perf_counter()
    bf16 = computes_bf16(cfg.training.precision, local_device())
    moments = set_moments(autoencoder, images, cfg.latents.crops, cfg.data.cache_dir, bf16)
    logger.info("latents of %s: %s, %.0f s", images.name, tuple(moments.shape), time.perf_counter() - started)
    return moments


def check_preview_classes(cfg: DictConfig, images: ImageSet) -> None:
    """LabError for a class to look at that the set does not have, or nothing at all, before a CLIP is trained."""
    if not cfg.training.preview_every:
        return
    if not (images.class_names or cfg.preview.classes or cfg.preview.prompts):
        raise LabError(
            f"preview: {images.name} has no classes; name prompts to look at, preview.prompts=[...], "
            "or do without, training.preview_every=0"
        )
    for name in cfg.preview.classes or ():
        try:
            class_index(name, images.class_names)
        except LabError as error:
            raise LabError(f"preview: {error}") from error


def preview_count(cfg: DictConfig, shown: Request) -> int:
    """Samples of each thing that sheets show; of one thing alone more than one, where nobody says how many."""
    return ONE_THING if cfg.preview.count == 1 and len(shown.labels) <= 1 else int(cfg.preview.count)


def preview_request(cfg: DictConfig, class_names: Sequence[str], conditioner: Conditioner) -> Request:
    """What sample sheets show: what the config names, else the first 32 classes; LabError if it cannot be had."""
    if cfg.training.preview_every == 0:
        return Request()
    asked: dict[str, Any] = OmegaConf.to_container(cfg.preview)  # type: ignore[assignment]
    if asked["classes"] is None and asked["prompts"] is None and not isinstance(conditioner, Unconditional):
        asked["classes"] = list(class_names[:32]) or None
    try:
        request = Request(prompts=asked["prompts"], classes=asked["classes"])
        conditioner.inputs(request)
    except LabError as error:
        raise LabError(f"preview: {error}; training.preview_every=0 does without") from error
    return request
