"""How different two images look, by the features of a network that has learned to see."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from lab.clip import Clip
from lab.errors import LabError


class PerceptualDistance:
    """Squared differences of unit-norm features, a mean over places and a sum over stages.

    Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", eq. 1, all weights 1.
    The network is frozen and belongs to no module: it is not trained, averaged or saved.

    stages      applied one after the other; each one's output is compared
    mean, std   of the pixels in [0, 1] that the network was trained on
    fingerprint of its weights, where it may be another one day
    """

    def __init__(
        self,
        stages: Sequence[nn.Module | Callable[[Tensor], Tensor]],
        mean: Tensor,
        std: Tensor,
        fingerprint: str | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.stages, self.mean, self.std = tuple(stages), mean[:, None, None], std[:, None, None]

    @classmethod
    def of_clip(cls, clip: Clip) -> "PerceptualDistance":
        """By a CLIP's image tower, e.g. flower_clip's; LabError where it is no ResNet."""
        tower: Any = clip.model.visual
        tower = getattr(tower, "trunk", tower)  # timm's, or open_clip's own
        if not hasattr(tower, "layer4"):
            raise LabError(f"reconstruction.perceptual: {clip.name} has no residual stages; use flower_clip or vgg")
        stem = getattr(tower, "stem", None) or nn.Sequential(tower.conv1, tower.bn1, tower.act1, tower.maxpool)
        stages = (stem, tower.layer1, tower.layer2, tower.layer3, tower.layer4)
        mean, std = (torch.tensor(clip.preprocess[key]) for key in ("mean", "std"))
        return cls(stages, mean, std, clip.fingerprint)

    @classmethod
    def of_vgg(cls) -> "PerceptualDistance":
        """By torchvision's VGG-16, whose weights (528 MB) are downloaded; LabError offline."""
        try:
            network = torchvision.models.vgg16(weights="IMAGENET1K_V1").features.eval().requires_grad_(False)
        except (URLError, OSError) as error:
            raise LabError(
                f"reconstruction.perceptual=vgg: torchvision's weights are out of reach ({error}); use flower_clip"
            ) from error
        ends = (0, 4, 9, 16, 23, 30)  # each stage ends with the ReLU before a pooling
        stages = [network[start:end] for start, end in pairwise(ends)]
        return cls(stages, torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))

    def to(self, device: torch.device) -> "PerceptualDistance":
        """Move the network there."""
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        for stage in self.stages:
            owner = getattr(stage, "__self__", stage)  # a bound method's module
            if isinstance(owner, nn.Module):
                owner.to(device)
        return self

    def __call__(self, one: Tensor, other: Tensor) -> Tensor:
        """(B,) of images (B, 3, H, W) in [-1, 1]; gradients flow to both."""
        one, other = (((images + 1) / 2 - self.mean) / self.std for images in (one, other))
        distance = one.new_zeros(len(one))
        for stage in self.stages:
            one, other = stage(one), stage(other)
            unit = [features.float() / (features.float().norm(dim=1, keepdim=True) + 1e-6) for features in (one, other)]
            distance = distance + (unit[0] - unit[1]).square().sum(dim=1).mean(dim=(1, 2))
        return distance
