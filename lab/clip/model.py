"""A frozen open_clip model behind two verbs: images to vectors, sentences to vectors."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from lab.errors import LabError
from lab.fingerprints import weights_fingerprint

logger = logging.getLogger(__name__)
Tokenizer = Callable[[list[str]], Tensor]


class Clip:
    """Any open_clip model, frozen, in eval mode, taking the lab's images and plain sentences.

    name     architecture and where its weights come from
    config   open_clip's description of the architecture, from which it can be built again
    words    numbers of the tokens that it knows, where the embeddings of the others were left out; None: all
    whole    fingerprint of the weights it had before
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        name: str,
        config: dict[str, Any],
        words: Iterable[int] | None = None,
        whole: str | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.name, self.config = tokenizer, name, config
        self.preprocess: dict[str, Any] = dict(model.visual.preprocess_cfg)  # type: ignore[union-attr, arg-type]
        size = self.preprocess["size"]
        self.image_size: int = size if isinstance(size, int) else size[0]
        self.words, self.whole = None if words is None else frozenset(words), whole
        self._missed: set[int] = set()  # tokens that it has said it does not know
        self._cut: set[str] = set()  # sentences whose ends it has said it misses
        self.dim = self.encode_text([""]).shape[1]

    @property
    def device(self) -> torch.device:
        """Where the weights are, and the vectors that come out."""
        return next(self.model.parameters()).device

    @property
    def preprocessing(self) -> str:
        """What happens to images before they enter the network, in words."""
        how = self.preprocess
        mean, std = ([round(float(x), 6) for x in how[key]] for key in ("mean", "std"))
        return f"{self.image_size} px, {how['interpolation']}, {how['resize_mode']}, mean {mean}, std {std}"

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits, SHA-256 of all weights."""
        return weights_fingerprint(self.model)

    def to(self, device: torch.device | str) -> "Clip":
        """Move the weights."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], any size -> (B, dim) of unit norm, prepared as the weights expect."""
        vectors: Tensor = self.model.encode_image(self._prepare(images.to(self.device)))  # type: ignore[operator]
        return normalize(vectors.float(), dim=1)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Sentences -> (B, dim) of unit norm; what exceeds the context length, and unknown words, are told of."""
        tokens = self.tokenizer(list(prompts))
        self._warn(tokens)
        self._warn_of_ends(prompts, tokens)
        vectors: Tensor = self.model.encode_text(tokens.to(self.device))  # type: ignore[operator]
        return normalize(vectors.float(), dim=1)

    @torch.no_grad()
    def encode_tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Sentences -> vectors (B, dim) of unit norm, and what the text tower says at each place (B, L, width).

        Places behind a sentence's end are among them, as in latent diffusion. Raises LabError for a tower without them.
        """
        tower = getattr(self.model, "text", self.model)
        if not isinstance(getattr(tower, "ln_final", None), nn.Module):
            raise LabError(f"{self.name}: its text tower gives no tokens; use a CLIP with a transformer of its own")
        seen: list[Tensor] = []
        hook = tower.ln_final.register_forward_hook(lambda *called: seen.append(called[2]))  # type: ignore[union-attr, operator]
        try:
            vectors = self.encode_text(prompts)
        finally:
            hook.remove()
        if seen[0].ndim != 3:
            raise LabError(f"{self.name}: its text tower gives no tokens; use a CLIP with a transformer of its own")
        return vectors, seen[0].float()

    def _warn(self, tokens: Tensor) -> None:
        missed = set() if self.words is None else set(tokens.unique().tolist()) - self.words - self._missed
        if missed:
            self._missed |= missed
            words = sorted(self.tokenizer.decode([token]).strip() for token in missed)  # type: ignore[attr-defined]
            logger.warning("%s has never met, and does not hear: %s", self.name, ", ".join(words))

    def _warn_of_ends(self, prompts: Sequence[str], tokens: Tensor) -> None:
        if not isinstance(self.tokenizer, SimpleTokenizer):
            return
        for prompt, heard in zip(prompts, tokens.tolist(), strict=True):
            said = self.tokenizer.encode(prompt)
            if len(said) > len(heard) - 2 and prompt not in self._cut:  # a start and an end are among what is heard
                self._cut.add(prompt)
                rest = self.tokenizer.decode(said[len(heard) - 2 :]).strip()
                logger.warning(
                    "%s hears %d pieces of words; of %r it misses %r", self.name, len(heard) - 2, prompt, rest
                )

    def _prepare(self, images: Tensor) -> Tensor:
        size = [self.image_size, self.image_size]
        if list(images.shape[2:]) != size:
            # "shortest" keeps the aspect ratio and crops the centre, "squash" does not.
            target = size if self.preprocess["resize_mode"] == "squash" else size[:1]
            mode = InterpolationMode(self.preprocess["interpolation"])
            images = transforms.center_crop(transforms.resize(images, target, mode, antialias=True), size)
            images = images.clamp(-1, 1)  # bicubic overshoots, bytes do not
        return transforms.normalize((images + 1) / 2, self.preprocess["mean"], self.preprocess["std"])
