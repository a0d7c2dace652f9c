"""python -m lab.export run=results/class_cond: a small copy of a run, to be kept and shared.

Averaged weights in half precision, the configuration, the log and its curve, the last sample sheet and the numbers of
lab.evaluate; raw weights and the optimiser are left behind, and so are sheets that show real pictures. `lab.load` and
everything that takes run=DIR take the copy as they take the run; training goes on from its averages with a new
optimiser. Of a run that trained a CLIP or a judge, that is kept, which is in half precision already; with words=met
without the words that no caption of its training had, which are most of a small CLIP. What these and autoencoders do is
shown on samples of a diffusion run, pictures=results/class_cond. With decoder=results/vae_decoder a run in latents
decodes with what was trained later for the same latents. step=1000 takes that checkpoint and not the newest, since a
decoder that learns against a discriminator is not always best at its end; step=best the one of the lowest loss of
held-out pictures. Beside an autoencoder whose decoder learned on lies how it had been trained until then, in before/.
"""

import filecmp
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from torch import Tensor

import lab
from lab import checkpoint
from lab.checkpoint import Checkpoint, halved
from lab.cli import entry_point
from lab.clip import load_clip, save_clip
from lab.clip.load import OWN as OWN_CLIPS
from lab.clip.load import training_note
from lab.conditioning import ClipVector
from lab.config import build, check_types
from lab.continuing import FREE, changes, write_config
from lab.copying import KEPT, SHOWN_ON, copy_before, copy_files, copy_numbers, copy_sheets
from lab.errors import LabError
from lab.evaluation.held_out import weights_of
from lab.evaluation.report import results
from lab.evaluation.sheets import sheet_of
from lab.evaluators import OWN, WEIGHTS, trained_by
from lab.latents import STATISTICS, fingerprint
from lab.recipes.diffusion import preview_count, preview_request
from lab.recipes.flower_clip import flower_clip_task
from lab.render import loss_curve, save_image
from lab.runs import CONFIG, OWN_CLIP, REFERENCE, check_run, load_autoencoder, pictures_of, read_config
from lab.training.diffusion import sample_sheet
from lab.training.log import TrainingLog

logger = logging.getLogger(__name__)
REMEMBERS = "lab.conditioning.ClipVector"
SMALL = Path("results/small")  # where copies go that have no other place
TYPES: dict[str, Any] = {
    **dict.fromkeys(("run", "out", "decoder", "pictures"), str | None),
    "words": Literal["all", "met"],
    "step": int | Literal["best"] | None,
    "remember": bool,
}


def chosen(checkpoints: Path, step: int | Literal["best"] | None) -> Checkpoint | None:
    """The checkpoint to be copied, None where there is none at all; LabError where `step` names none."""
    if step is None:
        return checkpoint.latest(checkpoints)
    return checkpoint.best(checkpoints) if step == "best" else checkpoint.of_step(checkpoints, step)


def export(
    run: Path,
    out: Path,
    words: str = "all",
    decoder: Path | None = None,
    pictures: Path | None = None,
    step: int | Literal["best"] | None = None,
    remember: bool = False,
) -> Path:
    """Copy a run into `out`; returns the checkpoint there, or `out` where it is no model that is sampled from.

    step      of the checkpoint that is copied; None: the newest; "best": of diffusion, that of the lowest held_out_loss
    words     of a CLIP's vocabulary, "all" or those "met" in training, for which its data are looked at again
    decoder   run whose decoder a run in latents gets instead of its own; numbers of what the old one painted stay
              behind, and the sheet is painted anew
    remember  whether a run conditioned on CLIP's vectors is given those of its training pictures, where it was trained
              before runs kept them; what was told of it and the sheet are dealt with as for another decoder
    pictures  diffusion run, on whose samples a sheet shows what an autoencoder, a CLIP or a judge makes of them
    Raises LabError for a run without a sound checkpoint, or one of that step, where `out` is the run itself, holds
    another one or one of a later step, where it cannot be written, and for a decoder of other latents.
    """
    cfg = read_config(run)
    if pictures is not None and cfg.task == "diffusion":
        raise LabError(f"pictures={pictures}: {run} makes pictures of its own; leave it out")
    if pictures is not None and read_config(pictures).task != "diffusion":
        raise LabError(f"pictures={pictures}: it makes no pictures; name a diffusion run")
    if decoder is not None and (cfg.task != "diffusion" or cfg.latents.run is None):
        raise LabError(f"decoder={decoder}: {run} is no diffusion in latents; leave it out")
    if words != "all" and cfg.task != "flower_clip":
        raise LabError(f"words={words}: it is for runs that trained a CLIP, not task={cfg.task}; leave it out")
    if remember and cfg.conditioning["_target_"] != REMEMBERS:
        raise LabError(f"remember=true: {run} is not conditioned on CLIP's vectors; leave it out")
    if step is not None and cfg.task in OWN:
        raise LabError(f"step={step}: of {run} the {OWN[cfg.task]} is kept that its training ended with; leave it out")
    if cfg.task in OWN:
        refuse_itself(run, out, is_copy=trained_by(run, cfg.task) == run)
        refuse_another(cfg, out)
        _export_own(run, cfg.task, out, words_met(cfg, run) if words == "met" else None)
        _show(run, out, pictures)
        return out
    checkpoints = run / "checkpoints"
    found = chosen(checkpoints, step)
    if found is None:
        raise LabError(f"run={run}: no checkpoint in {checkpoints} yet; train it first")
    refuse_itself(run, out, is_copy=not found.holds("raw"))
    results(run)  # damaged ones are named before anything is written
    refuse_another(cfg, out)
    there = sorted((out / "checkpoints").glob("step_*"))
    if any(path.name > found.path.name for path in there):
        raise LabError(f"out={out}: holds {there[-1].name}, a later one than {found.path.name}; delete it first")
    averaged = found.tensors("weights").items()
    weights = halved({key: tensor for key, tensor in averaged if not key.startswith("discriminator.")})
    if decoder is not None:
        weights |= decoder_for(weights, decoder)
    if remember:
        weights |= halved({"model.conditioner.pictures": remembered(cfg, run)})
    saved = checkpoint.save(out / "checkpoints", found.step, {"weights": weights}, found.state, keep=1, keep_best=0)
    copy_before(run, cfg, out)
    copy_files(run, out, KEPT)
    if step is not None and (out / "log.csv").is_file():
        TrainingLog(out / "log.csv", found.step)  # cuts what came later
        loss_curve(out / "log.csv", out / "loss.png")
    if (run / OWN_CLIP).is_dir() and out.resolve() != run.resolve() and not _is_beside(run / OWN_CLIP, out):
        shutil.copytree(run / OWN_CLIP, out / OWN_CLIP, dirs_exist_ok=True)
    if decoder is not None:
        cfg.latents = {**cfg.latents, "run": str(decoder), "fingerprint": fingerprint(load_autoencoder(decoder, "cpu"))}
        write_config(cfg, out)
    if decoder is not None or remember:
        _paint_anew(cfg, out, found.step)
        return saved
    if cfg.task == "diffusion":
        sheets = sorted((run / "samples").glob("step_*.png"))
        copy_sheets(run, out, [path for path in sheets if path.stem <= f"step_{found.step:07d}"][-1:])
    else:  # its own sheets show real pictures
        _show(run, out, pictures)
    copy_numbers(run, out, {"step": found.step})
    return saved


def _is_beside(clip: Path, out: Path) -> bool:
    """Whether `out` is one of the reference models, and the CLIP theirs, whatever words that has left."""
    if out.resolve().parent != REFERENCE.resolve():
        return False
    kept = [REFERENCE / name for name in OWN_CLIPS if (REFERENCE / name / WEIGHTS).is_file()]
    own, *others = (load_clip(pretrained=str(folder)) for folder in (clip, *kept))
    return any((one.whole or one.fingerprint) == (own.whole or own.fingerprint) for one in others)


def _paint_anew(cfg: DictConfig, out: Path, step: int) -> None:
    """A sheet of what a changed copy makes; the numbers and the sheet of what it made before go."""
    for path in [*out.glob("samples/step_*.png*"), *results(out)]:
        path.unlink()
    if cfg.training.preview_every:
        model = lab.load(out)
        request = preview_request(cfg, getattr(model.conditioner, "class_names", ()), model.conditioner)
        sample_sheet(model, request, preview_count(cfg, request), out / "samples", step)


def refuse_itself(run: Path, out: Path, is_copy: bool) -> None:
    """LabError where a run would be replaced by its copy, which has less; a copy may be copied onto itself."""
    if out.resolve() == run.resolve() and not is_copy:
        raise LabError(f"out={out}: is the run itself, which has more than its copy; name another folder")


def refuse_another(cfg: DictConfig, out: Path) -> None:
    """LabError where `out` holds what is no run, or one that was trained in another way; its decoder may be another."""
    if out.is_dir() and any(out.iterdir()) and not (out / CONFIG).is_file():
        raise LabError(f"out={out}: holds something else than a copy of a run; name another folder")
    for key, was, now in changes(cfg, out):
        if key not in FREE | {"latents.fingerprint"}:
            raise LabError(f"out={out}: holds another run, with {key}={was} and not {now}; delete it, or name another")


def decoder_for(weights: dict[str, Tensor], run: Path) -> dict[str, Tensor]:
    """The decoder of a run, halved, under the names that a diffusion run's weights have for theirs.

    Raises LabError where the latents of the two are not the same.
    """
    of = "model.autoencoder."
    state = {of + key: tensor for key, tensor in halved(load_autoencoder(run, "cpu").state_dict()).items()}
    own = {key: tensor for key, tensor in weights.items() if key.startswith(of)}
    told = {key for key in own if key.removeprefix(of) not in STATISTICS}  # which belong to the set of the diffusion
    latents = {key for key in told if not key.startswith(f"{of}decoder.")}
    if not told <= state.keys() or not all(torch.equal(own[key], state[key].to(own[key].dtype)) for key in latents):
        raise LabError(f"decoder={run}: its latents are others; use one that +experiment=vae_decoder trained for these")
    return {key: state[key] for key in told - latents}


def remembered(cfg: DictConfig, run: Path) -> Tensor:
    """Vectors (M, dim) of pictures that a run was trained on; LabError for other data."""
    conditioner, images = lab.load(run, "cpu").conditioner, pictures_of(run, "train")
    if cfg.image_set not in (None, f"{images.name} {images.fingerprint}"):
        raise LabError(f"remember=true: {images.name} is not what {run} was trained on, {cfg.image_set}")
    assert isinstance(conditioner, ClipVector)
    conditioner.remember(images, cfg.data.cache_dir)
    return conditioner.pictures


def _export_own(run: Path, task: str, out: Path, words: Tensor | None) -> None:
    """What a run trained that lies in a folder of its own, a CLIP's words as far as they are given."""
    source, own = trained_by(run, task), OWN[task]
    if not (source / WEIGHTS).is_file():
        raise LabError(f"run={run}: its training has not ended; there is no {own} in it yet")
    with tempfile.TemporaryDirectory() as staged:
        if words is not None:
            source = save_clip(staged, load_clip(pretrained=str(source)), training_note(source), words)
        if (out / WEIGHTS).is_file() and not filecmp.cmp(source / WEIGHTS, out / WEIGHTS, shallow=False):
            raise LabError(f"out={out}: holds another {own}; delete it first, or name another folder")
        copy_files(source, out, [path.name for path in source.iterdir() if path.is_file()])
    copy_files(run, out, KEPT)
    copy_numbers(run, out, weights_of(run))


def words_met(cfg: DictConfig, run: Path) -> Tensor:
    """Numbers (K,) of the tokens in the captions that a run's CLIP was trained with; LabError for other data."""
    source, settings = build(cfg.data), build(cfg.training)
    images = source.load("train")
    if images.fingerprint != training_note(trained_by(run, "flower_clip")).get("image_set_fingerprint"):
        raise LabError(f"words=met: {images.name} is not what {run} was trained on; its captions cannot be told")
    return flower_clip_task(cfg, source, images, settings).words_met(settings.steps)


def _show(run: Path, out: Path, pictures: Path | None) -> None:
    """A sheet of what `out` makes of samples of another run; without one those that the run has, if it is a copy."""
    if pictures is None:
        copy_sheets(run, out, sorted((run / "samples").glob(f"{SHOWN_ON}*.png")))
        return
    model, name = lab.load(pictures), pictures.resolve().name
    save_image(sheet_of(out, model, name), out / "samples" / f"{SHOWN_ON}{name}.png", model.provenance)


def check(cfg: DictConfig) -> None:
    """LabError unless `run` is given and is a run."""
    check_types(cfg, TYPES)
    check_run(cfg.run)
    if cfg.pictures is not None:
        check_run(cfg.pictures)


@entry_point("export", check)
def main(cfg: DictConfig) -> None:
    """Copy what the configuration names."""
    run = Path(cfg.run)
    out = Path(cfg.out) if cfg.out is not None else SMALL / run.resolve().name
    decoder, pictures = (None if path is None else Path(path) for path in (cfg.decoder, cfg.pictures))
    saved = export(run, out, cfg.words, decoder, pictures, cfg.step, cfg.remember)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    what = f"step {checkpoint.load(saved).step}" if saved != out else f"what {run} trained"
    logger.info("%s in %s, %.1f MiB", what, out, size)


if __name__ == "__main__":
    main()
