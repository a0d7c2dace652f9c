"""A trained judge: which class a picture shows, and what it is in numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from lab.checkpoint import halved
from lab.errors import LabError
from lab.fingerprints import weights_fingerprint
from lab.judging.network import JudgeNetwork
from lab.render.provenance import write_whole

NOTE, WEIGHTS = "judge.json", "model.safetensors"
OWN_JUDGE = "judge"  # folder of a run that holds the judge it trained


class Judge:
    """A frozen classifier of flowers and the space of its features.

    image_size    px that it was trained at; other pictures are resized to it
    class_names   what its logits stand for, in order
    held_out      {"top1", "top5", "images"}: how often it is right about real pictures that it has not seen
    """

    def __init__(self, network: JudgeNetwork, class_names: tuple[str, ...], image_size: int, note: Mapping[str, Any]):
        self.network = network.eval().requires_grad_(False)
        self.class_names, self.image_size, self.note = class_names, image_size, dict(note)

    @property
    def held_out(self) -> dict[str, float]:
        """Shares of held-out pictures whose class comes first, and among the first five, and how many they were."""
        return dict(self.note["held_out"])

    @property
    def about(self) -> str:
        """A sentence that belongs beside all that it says."""
        right = f"right about {self.held_out['top1']:.1%} of {self.held_out['images']} held-out pictures"
        return f"The judge itself is {right}, and has the class among its first five for {self.held_out['top5']:.1%}."

    @property
    def fingerprint(self) -> str:
        """16 hex digits, SHA-256 of the weights."""
        return weights_fingerprint(self.network)

    def to(self, device: torch.device | str) -> "Judge":
        """Move the weights."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> (B, 512) on the CPU."""
        return self.network.features(self._prepared(images)).float().cpu()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> (B, classes) on the CPU."""
        return self.network(self._prepared(images)).float().cpu()

    def _prepared(self, images: Tensor) -> Tensor:
        images = images.to(next(self.network.parameters()).device)
        if list(images.shape[2:]) != [self.image_size] * 2:
            images = transforms.resize(images, [self.image_size] * 2, antialias=True).clamp(-1, 1)
        return images


def save_judge(directory: Path | str, judge: Judge) -> Path:
    """Write weights (matrices in half precision) and what is known of the judge; returns the folder.

    Raises LabError where the folder cannot be written.
    """
    directory = Path(directory)
    blocks = [len(getattr(judge.network.body, f"layer{stage}")) for stage in range(1, 5)]
    note = {"class_names": judge.class_names, "image_size": judge.image_size, "blocks": blocks, **judge.note}
    write_whole(directory / WEIGHTS, lambda staged: staged.write_bytes(save(halved(judge.network.state_dict()))))
    write_whole(directory / NOTE, lambda staged: staged.write_text(json.dumps(note, indent=2) + "\n"))
    return directory


def load_judge(directory: Path | str) -> Judge:
    """The judge in a folder that `save_judge` wrote; LabError for another, or a damaged one."""
    directory = Path(directory)
    try:
        note = json.loads((directory / NOTE).read_text())
        names, size, blocks = (note.pop(key) for key in ("class_names", "image_size", "blocks"))
        network = JudgeNetwork(len(names), blocks)
        network.load_state_dict({key: tensor.float() for key, tensor in load_file(directory / WEIGHTS).items()})
    except FileNotFoundError as error:
        advice = "python -m lab.train +experiment=judge trains one"
        raise LabError(f"judge={directory}: no {NOTE} and {WEIGHTS} there; {advice}") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise LabError(f"judge={directory}: not a sound judge ({str(error).splitlines()[0]})") from error
    return Judge(network.to(memory_format=torch.channels_last), tuple(names), size, note)  # type: ignore[call-overload]
