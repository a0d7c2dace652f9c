"""A stand-in for a CLIP model, without weights or network, and pictures for it: shared by the tests of conditioners."""

import hashlib
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from lab.conditioning import ClipVector
from lab.data import ImageSet

NAMES = ("rose", "daisy")
N, DIM = 40, 12


class FakeClip:
    """Pictures to their mean colours in four corners, sentences to a direction of their own: two cones."""

    name, preprocessing, dim, image_size = "fake", "none", DIM, 4
    whole: str | None = None

    def __init__(self, fingerprint: str = "f" * 16) -> None:
        self.fingerprint, self.asked = fingerprint, []  # type: tuple[str, list[str]]

    def to(self, device: str) -> "FakeClip":
        return self

    def encode_images(self, images: Tensor) -> Tensor:
        return normalize(adaptive_avg_pool2d(images, 2).flatten(1) + 0.5, dim=1)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        self.asked += prompts
        seeds = [int(hashlib.sha256(prompt.encode()).hexdigest()[:8], 16) for prompt in prompts]
        rows = [torch.randn(DIM, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return normalize(0.3 * torch.stack(rows) - 1, dim=1)


def image_set() -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N, 2, 2, 3), dtype=torch.uint8, generator=draw)
    pixels = pixels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    captions = tuple(f"flower number {i}" for i in range(N))
    return ImageSet("some", pixels, torch.arange(N) % 2, NAMES, 4, captions, (), "0" * 16)


def all_inputs(conditioner: ClipVector) -> Tensor:
    return conditioner.training_inputs(image_set().batch(torch.arange(N)), torch.zeros(N, 2))


def pictures(count: int) -> list[Image.Image]:
    return [Image.fromarray(pixels.numpy()) for pixels in image_set().pixels[:count]]
