"""Spaces in which pictures are compared: the judge's own, and those of others for people online."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.error import URLError

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab.clip import Clip, load_clip
from lab.errors import LabError
from lab.judging import Judge

AT_A_TIME = 128  # pictures encoded together
A_TRIAL = 16  # pictures encoded to tell the time
TILES = 16  # a side, of a picture whose pixels are compared


@dataclass(frozen=True)
class FeatureSpace:
    """Pictures as numbers.

    name     what a figure in this space is called by; figures of two names are not to be compared
    encode   images (B, 3, H, W) in [-1, 1] -> features (B, D)
    """

    name: str
    encode: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """All images (N, 3, H, W) -> (N, D) float32 on the CPU, some at a time; a bar where it takes long."""
        parts = tqdm(images.split(AT_A_TIME), desc=f"in {self.name.split()[0]}", leave=False, disable=None, delay=2)
        return torch.cat([self.encode(part).float().cpu() for part in parts])

    def seconds(self, images: Tensor) -> float:
        """That a picture takes, told by some of these (N, 3, H, W), the first of which are slower."""
        took = []
        for part in images[: 3 * A_TRIAL].split(A_TRIAL):
            began = time.perf_counter()
            self(part)
            took.append((time.perf_counter() - began) / len(part))
        return min(took)


def judge_space(judge: Judge) -> FeatureSpace:
    """The judge's last features, 512 numbers."""
    return FeatureSpace(f"judge {judge.fingerprint}", judge.features)


def pixel_space() -> FeatureSpace:
    """Means of colour over 16 x 16 tiles of a picture, which a shift of two pixels hardly changes."""

    def encode(images: Tensor) -> Tensor:
        tiles = (min(TILES, images.shape[2]), min(TILES, images.shape[3]))
        return torch.nn.functional.adaptive_avg_pool2d(images, tiles).flatten(1)

    return FeatureSpace(f"pixels {TILES}x{TILES}", encode)


def clip_space(clip: Clip) -> FeatureSpace:
    """A CLIP's image vectors, of unit norm."""
    return FeatureSpace(f"{clip.name} {clip.fingerprint}", clip.encode_images)


def inception_space(device: torch.device | str = "cpu") -> FeatureSpace:
    """The 2048 numbers of FID as it is published; the weights are downloaded. LabError offline, or without them."""
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"]).to(device)
    except (ModuleNotFoundError, URLError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = "pip install -e '.[inception]' and be online, or use space=judge"
        raise LabError(f"space=inception: its weights are out of reach ({reason}); {advice}") from error
    return FeatureSpace("inception-v3-compat", lambda images: network(((images + 1) * 127.5).round().byte().to(device)))


def open_clip_space(name: str, device: torch.device | str = "cpu") -> FeatureSpace:
    """The image vectors of an open_clip model, `name` its architecture and weights, e.g. "ViT-B-32/laion2b_s34b_b79k".

    Raises LabError offline, for unknown names, and without weights.
    """
    model, _, pretrained = name.partition("/")
    if not pretrained:
        raise LabError(f"space=open_clip/{name}: name its weights too, e.g. open_clip/ViT-B-32/laion2b_s34b_b79k")
    clip = load_clip(model, pretrained).to(device)
    return FeatureSpace(f"{clip.name} {clip.fingerprint}", clip.encode_images)


def timm_space(name: str, device: torch.device | str = "cpu") -> FeatureSpace:
    """The pooled features of a timm model with its published weights; LabError offline, or for an unknown name."""
    import timm  # comes with open_clip_torch
    from timm.data.config import resolve_data_config

    try:
        network = timm.create_model(name, pretrained=True, num_classes=0).to(device).eval()
    except Exception as error:  # what timm, the hub and the network make of it
        reason = " ".join(str(error).split())[:200]
        raise LabError(f"space=timm/{name}: cannot be had ({reason}); use space=judge") from error
    config = resolve_data_config({}, model=network)
    mean, std = (torch.tensor(config[key], device=device)[:, None, None] for key in ("mean", "std"))
    side = config["input_size"][-1]

    def encode(images: Tensor) -> Tensor:
        large = torch.nn.functional.interpolate(images.to(device), size=(side, side), mode="bicubic", antialias=True)
        out: Tensor = network(((large.clamp(-1, 1) + 1) / 2 - mean) / std)
        return out

    return FeatureSpace(f"timm/{name}", encode)
