"""What an autoencoder, a CLIP or a judge does with pictures that it has not seen."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab import checkpoint
from lab.autoencoders import Autoencoder
from lab.clip import load_clip
from lab.clip.retrieval import retrieval
from lab.data import ImageSet
from lab.evaluation.metrics import fid, kid
from lab.evaluation.spaces import FeatureSpace
from lab.evaluators import OWN, WEIGHTS, trained_by
from lab.judging import load_judge
from lab.judging.task import recognition
from lab.runs import load_autoencoder, read_config
from lab.there_and_back import reconstruction, there_and_back, views


def held_out_figures(run: Path, held_out: ImageSet, device: torch.device | str) -> dict[str, float]:
    """Figures of what a run trained that is not sampled from, by name; each a mean over all of `held_out`.

    Of an autoencoder those of `reconstruction`, of a CLIP of `lab.clip.retrieval`, of a judge of `recognition`.
    Raises LabError where the run has not ended, or holds nothing sound.
    """
    task = read_config(run).task
    if task == "autoencoder":
        return reconstruction(load_autoencoder(run, device), held_out)
    if task == "judge":
        return recognition(load_judge(trained_by(run, task)).to(device), held_out)
    return retrieval(load_clip(pretrained=str(trained_by(run, task))).to(device), held_out)


def weights_of(run: Path) -> dict[str, Any]:
    """{"step", "weights_sha256"} of what `held_out_figures` looks at; a CLIP's and a judge's are of no step."""
    task = read_config(run).task
    if task in OWN:
        return {"step": None, "weights_sha256": sha256((trained_by(run, task) / WEIGHTS).read_bytes()).hexdigest()}
    saved = checkpoint.latest(run / "checkpoints")
    return {"step": saved.step, "weights_sha256": saved.fingerprint("weights")} if saved else {"step": None}


@torch.no_grad()
def likeness(autoencoder: Autoencoder, held_out: ImageSet, reference: Tensor, space: FeatureSpace) -> dict[str, float]:
    """{"fid", "kid", "real_fid", "real_kid"} of held-out pictures that came back, and of these pictures themselves.

    Against reference pictures (R, 3, H, W). No sample of a diffusion in the latents can be expected to have less.
    """
    batches = list(there_and_back(autoencoder, views(held_out)))
    features = space(reference)
    told: dict[str, float] = {}
    for name, side in (("real_", 0), ("", 1)):
        found = space(torch.cat([batch[side].cpu() for batch in batches]))
        told |= {f"{name}fid": fid(features, found), f"{name}kid": kid(features, found)[0]}
    return told
