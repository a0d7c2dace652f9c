"""Training flower_clip: a small open_clip model from zero, on images and captions made for them."""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from lab.checkpoint import halved
from lab.clip.augment import Augmentation, blend
from lab.clip.captions import CaptionMaker
from lab.clip.load import OWN, quiet
from lab.clip.loss import matching_loss, targets
from lab.clip.model import Clip
from lab.clip.retrieval import retrieval
from lab.clip.store import save_clip
from lab.clip.words import strew
from lab.data import BatchStream, ImageSet
from lab.errors import LabError
from lab.seeding import derive, generator
from lab.training.statistics import refresh_statistics
from lab.training.task import StreamTask

MAX_LOGIT_SCALE = math.log(100)  # Radford et al. 2021, section 2.5
STATISTICS_BATCHES = 8  # of training images, for the statistics of batch normalisation
# The lab's images in [-1, 1] are what the network sees.
PREPROCESS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
# Painted flowers must keep all their petals to be counted, and look the same from every side.
PAINTED_AUGMENTATION = Augmentation(area=(0.9, 1.15), aspect=1.15, turn=180.0, light=0.1, erase=0.0)


class FlowerClipTask(StreamTask):
    """Images and captions of the same flowers are drawn together, others apart.

    batch_size     of all processes together
    model          flower_clip | flower_clip_small
    flip           whether half of the views are mirrored
    Half of the views are blended with others, and half of the captions have words of no meaning strewn in; of painted
    sets, whose views show more, none. Raises LabError for a model that is not the lab's own.
    """

    name = "flower_clip"
    divisible = False  # each image is compared with the whole batch

    def __init__(
        self,
        image_set: ImageSet,
        held_out: ImageSet,
        batch_size: int,
        seed: int,
        model: str = "flower_clip",
        class_balanced: bool = False,
        flip: bool = True,
    ) -> None:
        super().__init__()
        if model not in OWN:
            raise LabError(f"clip_model={model}: the lab trains {' or '.join(OWN)}")
        self.image_set, self.held_out, self.seed, self.architecture = image_set, held_out, seed, model
        self.stream = BatchStream(image_set, batch_size, seed, class_balanced)
        painted = bool(image_set.factors)  # whose captions say how large they are, as others say by the way
        self.augmentation = replace(PAINTED_AUGMENTATION if painted else Augmentation(), mirror=flip)
        self.captions = CaptionMaker(image_set, varied=not painted)
        self.mixed, self.strewn = not painted, 0.0 if painted else 0.5
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(derive(seed, "flower_clip"))
            self.network = open_clip.create_model(model, force_preprocess_cfg=PREPROCESS)
        with quiet():
            self.tokenizer = open_clip.get_tokenizer(model)
        size = self.network.visual.image_size
        self.image_size: int = size if isinstance(size, int) else size[0]

    def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """images (b, 3, S, S), tokens (b, L), image_targets and text_targets (b, B): this rank's rows of B.

        Raises LabError unless `world` divides the batch.
        """
        rows, indices = self.stream.share(rank, world), self.stream.indices(step)
        captions = self.captions.draw(indices, generator(self.seed, "captions", step))
        truth, pixels = self.captions.truth(indices, captions), self.image_set.pixels[indices]
        draw = generator(self.seed, "views", step)
        if self.mixed:
            # A picture's own caption stays the truest.
            blended = blend(self.augmentation, pixels, self.image_size, draw, rows, own_first=True)
            views = blended.views
            image_targets, text_targets = targets(truth, blended.partners, blended.weight)
        else:
            views = self.augmentation(pixels, self.image_size, draw, rows)
            image_targets, text_targets = targets(truth)
        return {
            "images": views,
            "tokens": strew(self.tokenizer, captions.texts, self.strewn, generator(self.seed, "words", step), rows),
            "image_targets": image_targets[rows],
            "text_targets": text_targets[rows],
        }

    def forward(  # type: ignore[override]
        self, images: Tensor, tokens: Tensor, image_targets: Tensor, text_targets: Tensor
    ) -> dict[str, Tensor]:
        """{"loss": (b,), "batch_top1": (b,) whether the nearest caption is true, "logit_scale": ()}."""
        image_vectors = self.network.encode_image(images, normalize=True)
        text_vectors = self.network.encode_text(tokens, normalize=True)
        scale = self.network.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        with torch.autocast(images.device.type, enabled=False):  # logits reach 100, too much for bf16
            loss, logits = matching_loss(
                image_vectors.float(), text_vectors.float(), scale.float(), image_targets, text_targets
            )
        hits = image_targets.gather(1, logits.argmax(dim=1, keepdim=True)) > 0
        return {"loss": loss, "batch_top1": hits[:, 0].float(), "logit_scale": scale.detach()}

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        """Held-out retrieval; nothing is written."""
        return retrieval(self.clip(), self.held_out)

    def clip(self) -> Clip:
        """A frozen copy of the model as it would be stored: in half precision, its statistics up to date."""
        network = deepcopy(self.network)
        network.load_state_dict(halved(network.state_dict()))
        device = self.network.logit_scale.device
        batches = (self.inputs(step)["images"].to(device) for step in range(STATISTICS_BATCHES))
        refresh_statistics(network.visual, batches)
        config: dict[str, Any] = open_clip.get_model_config(self.architecture)
        return Clip(network, self.tokenizer, self.architecture, config)

    def words_met(self, steps: int) -> Tensor:
        """Numbers (K,) of the tokens in any caption of the first `steps` steps, those strewn in apart."""
        texts: set[str] = set()
        for step in range(steps):
            texts.update(self.captions.draw(self.stream.indices(step), generator(self.seed, "captions", step)).texts)
        return self.tokenizer(sorted(texts)).unique()

    def export(self, directory: Path | str) -> Path:
        """Store the model for `load_clip`, with its retrieval figures and what it was trained on.

        Raises LabError where the folder cannot be written.
        """
        clip = self.clip()
        return save_clip(
            directory,
            clip,
            {
                "image_set": self.image_set.name,
                "image_set_fingerprint": self.image_set.fingerprint,
                "held_out_fingerprint": self.held_out.fingerprint,
                "held_out_images": len(self.held_out),
                "retrieval": retrieval(clip, self.held_out),
                "seed": self.seed,
            },
        )
