"""Getting a `Clip`: from a folder that the lab wrote, a local weights file, or open_clip's hub tags."""

import json
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants as hub
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from safetensors.torch import load_file
from torch import Tensor

from lab.clip.model import Clip
from lab.errors import LabError

log = logging.getLogger(__name__)

CONFIG = "open_clip_config.json"  # the name that open_clip gives it, in folders and on the hub
WEIGHTS = "model.safetensors"
WORDS = "token_embedding.weight"
NUMBERS = "token_embedding.numbers"  # of the tokens whose rows are there, in a file without the others
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin")
OWN = ("flower_clip", "flower_clip_small")
open_clip.add_model_config(Path(__file__).parent / "configs")
TRAIN_OWN = "train one (python -m lab.train +experiment=flower_clip) and set pretrained to its folder"
DEFAULT = ("ViT-B-32", "laion2b_s34b_b79k")


def load_clip(model: str = DEFAULT[0], pretrained: str = DEFAULT[1], cache_dir: str | None = None) -> Clip:
    """An open_clip model with weights from a folder (`save_clip`'s or open_clip's), a file, or a hub tag.

    model       open_clip's name of the architecture; a folder says itself what it holds
    pretrained  tags of weights that were trained with QuickGELU ("openai") get the architecture that has it
    cache_dir   for downloads, None for the hub's own place
    Raises LabError for unknown names, unfit or damaged weights, and a hub that is out of reach.
    """
    path = Path(pretrained)
    if path.is_dir():
        of_run = path / "clip"  # where a run of the lab leaves its own
        return _from_folder(of_run if (of_run / CONFIG).is_file() and not (path / CONFIG).is_file() else path)
    known = open_clip.list_models()
    if model not in known:
        raise LabError(f"model={model}: open_clip knows no such model{_nearest(model, known)}")
    if path.is_file():
        return _from_file(model, path)
    if path.suffix in WEIGHT_FILES or len(path.parts) > 1:
        raise LabError(f"pretrained={pretrained}: no such file or folder")
    return _from_hub(model, pretrained, cache_dir)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip's progress reports, which go to the root logger, out of the log."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def training_note(folder: Path) -> dict[str, Any]:
    """What the folder of a CLIP that the lab trained says of its training; {} where there is no such folder.

    Raises LabError for a damaged file.
    """
    note = folder / CONFIG
    try:
        return dict(json.loads(note.read_text()).get("training", {})) if note.is_file() else {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LabError(f"{note}: damaged ({_one_line(error)}); restore the file, or train the CLIP anew") from error


def only_words(state: Mapping[str, Tensor], words: Tensor) -> dict[str, Tensor]:
    """A CLIP's weights with the rows of these tokens (K,) alone in its embedding of tokens; `all_words` undoes it."""
    table = next(key for key in state if key.endswith(WORDS))
    return {**state, table: state[table][words].contiguous(), NUMBERS: words.to(torch.int32)}


def all_words(state: Mapping[str, Tensor], vocabulary: int) -> dict[str, Tensor]:
    """The same with a row for each token of the vocabulary, zeros for those that were left out."""
    table = next(key for key in state if key.endswith(WORDS))
    whole = state[table].new_zeros(vocabulary, state[table].shape[1])
    whole[state[NUMBERS].long()] = state[table]
    return {**{key: tensor for key, tensor in state.items() if key != NUMBERS}, table: whole}


def _from_folder(folder: Path) -> Clip:
    if not (folder / CONFIG).is_file():
        raise LabError(f"pretrained={folder}: no {CONFIG} in this folder; {TRAIN_OWN}")
    source = f"local-dir:{folder}"
    try:
        note = json.loads((folder / CONFIG).read_text())
        name, config = note.get("name", folder.name), note["model_cfg"]
        if "whole" not in note:
            return _build(source, name, config)
        state = load_file(folder / WEIGHTS)
        with quiet():
            network = open_clip.create_model(source, load_weights=False)
            network.load_state_dict(all_words(state, config["text_cfg"]["vocab_size"]))
            tokenizer = open_clip.get_tokenizer(source)
        return Clip(network, tokenizer, name, config, state[NUMBERS].tolist(), note["whole"])
    except Exception as error:  # whatever open_clip, safetensors and torch make of damaged files
        raise LabError(f"pretrained={folder}: not a sound open_clip folder ({_one_line(error)})") from error


def _from_file(model: str, path: Path) -> Clip:
    tag = _tag_in_path(model, path)
    right = _with_right_activation(model, tag)
    if right != model:
        raise LabError(f"pretrained={path}: {tag} weights were trained with QuickGELU; set model={right}")
    config, name = open_clip.get_model_config(model), f"{model}/{path.name}"
    try:
        preprocess = _preprocessing_for(model, path, tag)
        return _build(model, name, config, pretrained=str(path), force_preprocess_cfg=preprocess)
    except Exception as error:
        raise LabError(f"pretrained={path}: no weights of model={model} ({_one_line(error)})") from error


def _from_hub(model: str, tag: str, cache_dir: str | None) -> Clip:
    if not get_pretrained_cfg(model, tag):
        nearest = _nearest(tag, list_pretrained_tags_by_model(model))
        reason = TRAIN_OWN if model in OWN else f"open_clip knows no such weights of {model}{nearest}"
        raise LabError(f"pretrained={tag}: {reason}")
    model = _with_right_activation(model, tag)
    config = open_clip.get_model_config(model)
    log.info("CLIP %s with weights %s from the hub or its cache", model, tag)
    try:
        with _without_waiting():
            return _build(model, f"{model}/{tag}", config, pretrained=tag, cache_dir=cache_dir)
    except Exception as error:
        raise LabError(
            f"pretrained={tag}: could not get the weights of {model} ({_one_line(error)}); "
            f"set pretrained to a local weights file, or use the lab's own conditioning.model=flower_clip"
        ) from error


def _build(source: str, name: str, config: dict[str, Any], cache_dir: str | None = None, **how: Any) -> Clip:
    with quiet():
        network = open_clip.create_model(source, cache_dir=cache_dir, require_pretrained=True, **how)
        return Clip(network, open_clip.get_tokenizer(source, cache_dir=cache_dir), name, config)


def _with_right_activation(model: str, tag: str) -> str:
    """The model's name, or that of its twin with QuickGELU where the tag's weights were trained with it."""
    twin = f"{model}-quickgelu"
    needs = get_pretrained_cfg(model, tag).get("quick_gelu", False)
    has = open_clip.get_model_config(model).get("quick_gelu", False)
    return twin if needs and not has and twin in open_clip.list_models() else model


def _tag_in_path(model: str, path: Path) -> str:
    """The tag of this model that a file's path speaks of or that has its name; "" if there is none."""
    where = str(path.resolve()).lower().replace("-", "_")
    tags = sorted(list_pretrained_tags_by_model(model), key=len)
    urls = {tag: get_pretrained_cfg(model, tag).get("url") or "" for tag in tags}
    published = [tag for tag in tags if urls[tag].endswith(f"/{path.name}")]
    return ([""] + published + [tag for tag in tags if tag in where])[-1]


def _preprocessing_for(model: str, path: Path, tag: str) -> dict[str, Any]:
    """What a file's weights expect of images: as the config beside it says, its tag, or all tags alike."""
    config = path.parent / CONFIG
    if config.is_file():
        beside: dict[str, Any] = json.loads(config.read_text()).get("preprocess_cfg", {})
        return beside
    keys = ("mean", "std", "interpolation", "resize_mode")
    tags = [tag] if tag else list_pretrained_tags_by_model(model)
    known = [{key: get_pretrained_cfg(model, t)[key] for key in keys} for t in tags]
    if known and all(how == known[0] for how in known):
        return known[0]
    log.warning("%s: its preprocessing is unknown, taking open_clip's default; is there a %s?", path, CONFIG)
    return {}


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Let the hub's client use its cache at once where there is no network; it would retry for a minute."""
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or not _answers(hub.ENDPOINT)
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _answers(url: str) -> bool:
    """Whether a server can be reached within five seconds; a refusal or odd certificate is an answer."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False
    return True


def _nearest(name: str, names: list[str]) -> str:
    """The end of a message: what may have been meant."""
    close = get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
    return f"; nearest: {', '.join(close)}" if close else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
