"""CLIP vectors as conditions: image vectors in training, text or image vectors when sampling."""

from collections.abc import Sequence
from copy import copy
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor

from lab.clip import Clip, clip_vectors, load_clip, vector_stats
from lab.clip.captions import class_prompts
from lab.clip.load import OWN
from lab.conditioning.base import Condition, Conditioner, Request
from lab.conditioning.classes import class_index
from lab.data import Batch, ImageSet, opened
from lab.device import local_device
from lab.errors import LabError
from lab.seeding import generator
from lab.seeding import noise as seeded_noise

REMEMBERED = 4096  # pictures at most whose vectors a run keeps
CHOICES = 32  # ways to tell a text


def _mean_view(vectors: Tensor) -> Tensor:
    """(B, V, dim) to (B, dim) of unit norm: a picture and its mirror image are one condition."""
    return normalize(vectors.mean(dim=1), dim=1)


class ClipConditioner(Conditioner):
    """What conditioners by CLIP share: the model, loaded when first asked for and belonging to no checkpoint.

    model, pretrained   as `lab.clip.load_clip` takes them: a hub tag, a weights file, or a flower_clip folder
    fingerprint         of the weights that the run was trained with
    """

    def __init__(self, model: str, pretrained: str, dim: int, dropout: float, fingerprint: str | None) -> None:
        super().__init__(dim, dropout)
        if pretrained == "flower_clip" and model not in OWN:
            raise LabError(f"conditioning.model={model}: name its weights too, conditioning.pretrained=TAG or a file")
        self.model, self.pretrained, self.fingerprint = model, pretrained, fingerprint
        self._clip: Clip | None = None

    @property
    def clip(self) -> Clip:
        """The CLIP model; LabError when it is not the one the run was trained with."""
        if self._clip is None:
            clip = load_clip(self.model, self.pretrained)
            if self.fingerprint not in (None, clip.fingerprint, clip.whole):
                raise LabError(
                    f"conditioning.pretrained={self.pretrained}: weights {clip.fingerprint}, but the run was trained "
                    f"with {self.fingerprint}; point it at the CLIP that the run used"
                )
            self._clip = clip
        return self._clip


def tell_texts_by(conditioner: Conditioner, neighbours: int | None) -> None:
    """Where a number is given: a run's texts are told by so many pictures. LabError for a run that hears none so."""
    if neighbours is None:
        return
    if not isinstance(conditioner, ClipVector):
        raise LabError(f"neighbours={neighbours}: this run hears no texts by CLIP's vectors; leave it out")
    conditioner.tell_by(neighbours)


class ClipVector(ClipConditioner):
    """Unit-norm CLIP vectors, standardised over the training set, or a learned null vector.

    model, pretrained, fingerprint   as in ClipConditioner
    modality_shift      move text vectors by the difference of the set's mean image and mean caption vector
                        (Liang et al. 2022, "Mind the gap"), since the network has seen image vectors only
    noise               Gaussian, on image vectors in training, in standard deviations of the set's: what is blurred
                        reaches as far as the texts, after Nukrai et al. 2022, "Text-only training for image
                        captioning using noise-injected CLIP"; not normalised again
    neighbours          texts are told as pictures: each sample gets the mean of so many, drawn from the `nearest`
                        ones of those that the run remembers (after Sheynin et al. 2022, "KNN-Diffusion"); 0
                        tells the text's own vector. What is no text is told as it is
    dim, fingerprint and class_names are filled in by training and kept in the run's config
    """

    mean: Tensor
    std: Tensor
    text_mean: Tensor
    pictures: Tensor  # (M, dim) of unit norm, those remembered

    def __init__(
        self,
        model: str = "flower_clip",
        pretrained: str = "flower_clip",
        dropout: float = 0.1,
        modality_shift: bool = True,
        noise: float = 0.0,
        neighbours: int = 4,
        nearest: int = 16,
        dim: int = 0,
        fingerprint: str | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__(model, pretrained, dim, dropout, fingerprint)
        if not (noise >= 0 and isfinite(noise)):
            raise LabError(f"conditioning.noise={noise}: use 0 or more standard deviations")
        if not 0 <= neighbours <= nearest:
            raise LabError(f"conditioning.neighbours={neighbours}: use 0 to conditioning.nearest={nearest}")
        self.nearest, self.neighbours = nearest, neighbours
        self.modality_shift, self.noise, self.class_names = modality_shift, noise, tuple(class_names)
        self._vectors: Tensor | None = None  # (N, dim), of the prepared set
        self._allocate(dim)

    def _allocate(self, dim: int) -> None:
        self.null_vector = nn.Parameter(torch.zeros(dim))
        for name, value in (
            ("mean", torch.zeros(dim)),
            ("std", torch.ones(())),
            ("text_mean", torch.zeros(dim)),
            ("pictures", torch.zeros(0, dim)),
        ):
            self.register_buffer(name, value)

    @property
    def neighbours(self) -> int:
        """How many pictures tell a text; set to a number that cannot be it raises LabError."""
        return self._neighbours

    @neighbours.setter
    def neighbours(self, number: int) -> None:
        if number != int(number) or not 0 <= number <= self.nearest:
            raise LabError(f"neighbours={number}: use 0 to the run's conditioning.nearest={self.nearest}")
        self._neighbours = int(number)

    @property
    def telling(self) -> dict[str, Any]:
        by_pictures = {"neighbours": self.neighbours, "nearest": self.nearest} if self._tells_pictures else {}
        return {"modality_shift": self.modality_shift, **by_pictures}

    @property
    def _tells_pictures(self) -> bool:
        return self.neighbours > 0 and len(self.pictures) > 0

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Weights bring as many pictures as they have; those of before there were any leave what is there."""
        own = torch.zeros(0, self.dim) if self.pictures.is_meta else self.pictures
        remembered = state_dict.setdefault(f"{prefix}pictures", own)
        self.pictures = torch.empty_like(remembered, dtype=torch.float32, device=self.pictures.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def prepare(self, images: ImageSet, cache_dir: str) -> dict[str, Any]:
        """Encode the whole set once (cached on disk), take its statistics and remember some of it."""
        self._vectors = self._encoded(images, cache_dir)
        stats = vector_stats(self.clip, images, self._vectors[:, None])
        if not stats.std > 0:
            raise LabError(f"{images.name}: {self.clip.name} has the same vector for all pictures; add others")
        self.dim, self.fingerprint, self.class_names = (
            self.clip.dim,
            self.clip.fingerprint,
            images.class_names,
        )
        self._allocate(self.dim)
        self.mean, self.std, self.text_mean = stats.mean, stats.std, stats.text_mean
        self._remember(self._vectors)
        return {
            "dim": self.dim,
            "fingerprint": self.fingerprint,
            "class_names": list(images.class_names),
        }

    def tell_by(self, neighbours: int) -> None:
        """Tell texts by so many pictures from now on; LabError for a number that cannot be."""
        if neighbours and not len(self.pictures):
            advice = "python -m lab.export run=... remember=true makes a copy that does"
            raise LabError(f"neighbours={neighbours}: the run is from before runs remembered pictures; {advice}")
        self.neighbours = neighbours

    def remember(self, images: ImageSet, cache_dir: str) -> None:
        """Keep vectors of the set that the run was trained on, where it was trained before runs kept them."""
        self._remember(self._encoded(images, cache_dir))

    def _remember(self, vectors: Tensor) -> None:
        some = torch.randperm(len(vectors), generator=generator(0, "remembered"))[:REMEMBERED]
        self.pictures = vectors[some].to(self.mean.device)

    def on(self, images: ImageSet, cache_dir: str) -> "ClipVector":
        """The same with another set's vectors, encoded once too."""
        other = copy(self)
        other._vectors = self._encoded(images, cache_dir)
        return other

    def _encoded(self, images: ImageSet, cache_dir: str) -> Tensor:
        """(N, dim): the vectors of a set."""
        self.clip.to(local_device())
        vectors = _mean_view(clip_vectors(self.clip, images, cache_dir))
        self.clip.to("cpu")  # what is left to do for it is little, and memory is the network's
        return vectors

    def training_inputs(self, batch: Batch, uniform: Tensor) -> Tensor:
        """(B, dim) of unit norm, and the noise on them."""
        if self._vectors is None:
            raise ValueError("prepare(images) comes before training")
        vectors = self._vectors[batch.indices]
        if self.noise == 0:
            return vectors
        drawn = seeded_noise((self.dim,), 0, (uniform[:, 0] * 2**53).long().tolist(), "clip vectors")
        return vectors + self.noise * self.std.cpu() * drawn

    def asked(self, request: Request, device: torch.device) -> Condition:
        condition = super().asked(request, device)
        shown = request.images is not None or not self._tells_pictures
        return condition if shown else self._among_pictures(condition.vector)

    def _among_pictures(self, texts: Tensor) -> Condition:
        """Standardised vectors (B, dim) -> the midst of the nearest pictures', and means of some to choose from.

        Near is what has the greatest cosine about the pictures' mean.
        """
        pictures, nearest = self.pictures.to(texts), min(self.nearest, len(self.pictures))
        cosines = normalize(texts, dim=1) @ normalize(self(pictures).vector, dim=1).T
        rows = cosines.topk(nearest, dim=1).indices.sort(dim=1).values  # which of two is nearer does not matter
        found = pictures[rows]  # (B, nearest, dim)
        draw = generator(0, "neighbours")
        some = torch.stack([torch.randperm(nearest, generator=draw)[: self.neighbours] for _ in range(CHOICES)])
        means = normalize(found[:, some].mean(dim=2), dim=-1)
        return Condition(self(normalize(found.mean(dim=1), dim=1)).vector, choices=self(means).vector)

    def inputs(self, request: Request) -> Tensor:
        """(B, dim) vectors of prompts, of class names through a prompt, or of images."""
        if request.images is not None:
            return self._image_vectors(request.images)
        if request.classes is not None:
            names = [self.class_names[class_index(c, self.class_names)] for c in request.classes]
            return self._text_vectors([class_prompts(name)[0] for name in names])  # one that training says
        if request.prompts is None:
            raise LabError("this run is CLIP-conditional: give prompts=[...], classes=[...] or images=[...]")
        return self._text_vectors(list(request.prompts))

    def _text_vectors(self, prompts: list[str]) -> Tensor:
        vectors = self.clip.encode_text(prompts).cpu()
        return vectors + (self.mean - self.text_mean).cpu() if self.modality_shift else vectors

    def _image_vectors(self, images: Sequence[Any]) -> Tensor:
        rows = []
        for image in images:
            picture = opened(image)
            pixels = center_crop(pil_to_tensor(picture), [min(picture.size)])[None].float() / 127.5 - 1
            rows.append(self.clip.encode_images(torch.cat([pixels, pixels.flip(-1)])).cpu())
        return _mean_view(torch.stack(rows))

    def forward(self, inputs: Tensor, drop: Tensor | None = None) -> Condition:
        """inputs (B, dim) CLIP vectors -> vector (B, dim), without noise of unit variance over the training set."""
        vector = (inputs - self.mean) / self.std
        if drop is not None:
            vector = torch.where(drop[:, None], self.null_vector.to(vector), vector)
        return Condition(vector)

    def null(self, count: int) -> Condition:
        return Condition(self.null_vector.expand(count, -1))
