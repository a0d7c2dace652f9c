"""Writing a `Clip` to a folder that `load_clip` reads, as does open_clip itself (`local-dir:`) where it is whole."""

import contextlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from lab.checkpoint import halved
from lab.clip.load import CONFIG, WEIGHTS, only_words
from lab.clip.model import Clip
from lab.render.provenance import write_whole


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
    state = halved(clip.model.state_dict())
    weights = save(state if words is None else only_words(state, words))
    with contextlib.suppress(OSError):
        (directory / CONFIG).unlink()  # the folder counts as a model once it has this again
    write_whole(directory / WEIGHTS, lambda staged: staged.write_bytes(weights))
    write_whole(directory / CONFIG, lambda staged: staged.write_text(json.dumps(note, indent=2) + "\n"))
    return directory
