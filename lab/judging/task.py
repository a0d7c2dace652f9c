"""Training the judge: pictures mixed and disguised, and the classes that they were mixed from."""

from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.clip.augment import Augmentation, blend
from lab.data import BatchStream, ImageSet
from lab.errors import LabError
from lab.judging.judge import Judge
from lab.judging.network import JudgeNetwork
from lab.judging.recognition import AT_A_TIME, recognised
from lab.seeding import derive, generator
from lab.training.statistics import refresh_statistics
from lab.training.task import StreamTask

STATISTICS_BATCHES = 8  # of training pictures, for the statistics of batch normalisation


class JudgeTask(StreamTask):
    """A classifier of an image set with classes.

    smoothing   share of the target that is spread over all classes (Szegedy et al. 2016)
    flip        whether half of the views are mirrored
    Mixup (Zhang et al. 2018) blends half of the views with another of the batch. Raises LabError for a set without two
    classes.
    """

    name = "judge"
    divisible = False  # a view may be blended with any other of the batch

    def __init__(
        self,
        image_set: ImageSet,
        held_out: ImageSet,
        batch_size: int,
        seed: int,
        smoothing: float = 0.1,
        class_balanced: bool = False,
        flip: bool = True,
    ) -> None:
        super().__init__()
        if len(image_set.class_names) < 2:
            advice = "a judge needs two at least; lab.evaluate does without by space=inception or timm/NAME"
            raise LabError(f"{image_set.name}: has no classes to be told apart; {advice}")
        self.image_set, self.held_out, self.seed, self.smoothing = image_set, held_out, seed, smoothing
        self.stream = BatchStream(image_set, batch_size, seed, class_balanced)
        self.augmentation = Augmentation(area=(0.25, 1.0), light=0.3, mirror=flip)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "judge"))
            self.network = JudgeNetwork(len(image_set.class_names))

    def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """images (b, 3, H, W), labels (b,), others (b,) the classes blended in, weight (b,) of the first."""
        rows, indices = self.stream.share(rank, world), self.stream.indices(step)
        draw = generator(self.seed, "views", step)
        blended = blend(self.augmentation, self.image_set.pixels[indices], self.image_set.image_size, draw, rows)
        labels = self.image_set.labels[indices]
        return {
            "images": blended.views,
            "labels": labels[rows],
            "others": labels[blended.partners][rows],
            "weight": blended.weight[rows],
        }

    def forward(  # type: ignore[override]
        self, images: Tensor, labels: Tensor, others: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        """{"loss": (b,), "batch_top1": (b,) whether the heavier class comes first}."""
        logits = self.network(images).float()
        losses = [
            F.cross_entropy(logits, target, reduction="none", label_smoothing=self.smoothing)
            for target in (labels, others)
        ]
        heavier = torch.where(weight >= 0.5, labels, others)
        hits = (logits.argmax(dim=1) == heavier).float()
        return {"loss": weight * losses[0] + (1 - weight) * losses[1], "batch_top1": hits}

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        """How often held-out pictures are recognised; nothing is written."""
        return recognition(self.judge(), self.held_out)

    def judge(self) -> Judge:
        """A frozen copy as it would be stored, the statistics of its normalisations up to date."""
        network = deepcopy(self.network)
        device = next(network.parameters()).device
        batches = (self.inputs(step)["images"].to(device) for step in range(STATISTICS_BATCHES))
        refresh_statistics(network, batches)
        return Judge(network, self.image_set.class_names, self.image_set.image_size, {})


def recognition(judge: Judge, pictures: ImageSet) -> dict[str, float]:
    """{"top1", "top5"}: shares of pictures whose class comes first, and among the first five."""
    chunks = torch.arange(len(pictures)).split(AT_A_TIME)
    found = [recognised(judge.logits, pictures.view(chunk), pictures.labels[chunk]) for chunk in chunks]
    first, five = (torch.cat(side).float() for side in zip(*found, strict=True))
    return {"top1": float(first.mean()), "top5": float(five.mean())}
