"""Writing a `Clip` to a folder that `load_clip` reads, as does open_clip itself (`local-dir:`) where it is whole."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from lab.clip.load import CONFIG, WEIGHTS, only_words
from lab.clip.model import Clip
from lab.errors import LabError


def save_clip(directory: Path | str, clip: Clip, training: dict[str, Any], words: Tensor | None = None) -> Path:
    """Write weights (half precision) and config, with what is known about the training; returns the folder.

    words   (K,) numbers of the tokens to keep, where not all: most of a small CLIP are the embeddings of words that it
            never met. Those left out say nothing when it is loaded, and a run that was trained with the whole CLIP
            takes it too; open_clip by itself does not read such a folder.
    Raises LabError naming the folder where it cannot be written.
    """
    directory = Path(directory)
    note: dict[str, Any] = {
        "name": clip.name,
        "model_cfg": clip.config,
        "preprocess_cfg": clip.preprocess,
        "preprocessing": clip.preprocessing,
        "training": training,
    }
    if words is not None:
        note["whole"] = clip.whole or clip.fingerprint
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / CONFIG).unlink(missing_ok=True)  # the folder counts as a model once it has this again
        state = halved(clip.model)
        _replace(directory / WEIGHTS, save(state if words is None else only_words(state, words)))
        _replace(directory / CONFIG, (json.dumps(note, indent=2) + "\n").encode())
    except OSError as error:
        raise LabError(f"{directory}: cannot write a CLIP model ({error.strerror or error})") from error
    return directory


def halved(model: nn.Module) -> dict[str, Tensor]:
    """A model's state, matrices in half precision; vectors, scales and running statistics as they are."""
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    return {key: t.half() if t.is_floating_point() and t.ndim > 1 else t.clone() for key, t in state.items()}


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    staged = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with staged.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
