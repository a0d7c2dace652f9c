import json
import logging
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
import open_clip
import open_clip.pretrained
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lab.clip import Clip, load, load_clip
from lab.errors import LabError


def complaint(**arguments: Any) -> str:
    with pytest.raises(LabError) as caught:
        load_clip(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def weights(tmp_path: Path, tiny_network: nn.Module) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(tiny_network.state_dict(), path)
    return path


def same(clip: Clip, network: nn.Module) -> bool:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    own = Clip(network, open_clip.get_tokenizer("tiny-clip"), "", {})
    return torch.equal(own.encode_text(["a rose"]), clip.encode_text(["a rose"])) and (
        own.preprocess != clip.preprocess or torch.equal(own.encode_images(images), clip.encode_images(images))
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
def test_a_local_file_is_loaded_whatever_its_kind(
    tiny: str, tiny_network: nn.Module, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    state = tiny_network.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    clip = load_clip(tiny, str(path))
    assert same(clip, tiny_network)
    assert clip.name == f"tiny-clip/weights{suffix}" and clip.dim == 16 and clip.image_size == 32


def test_without_a_hint_open_clips_preprocessing_holds(
    tiny: str, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = load_clip(tiny, str(weights))
    assert clip.preprocess["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert "preprocessing" in caplog.text


def test_a_config_beside_the_file_tells_the_preprocessing(tiny: str, weights: Path) -> None:
    how = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    (weights.parent / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": how}))
    clip = load_clip(tiny, str(weights))
    assert {key: clip.preprocess[key] for key in how} == how
    assert "bilinear" in clip.preprocessing and "squash" in clip.preprocessing and "0.1" in clip.preprocessing


def test_a_tag_in_the_files_path_tells_the_preprocessing(
    tiny: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def published(value: float) -> dict[str, Any]:
        how = {"mean": (value,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "resize_mode": "squash"}
        return {"url": "", "hf_hub": "", **how}

    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny, {"one_e1": published(0.1), "two_e2": published(0.2)})
    path = weights.rename(weights.parent / "Tiny-two-e2.safetensors")
    assert load_clip(tiny, str(path)).preprocess["mean"] == (0.2,) * 3
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny, {"one_e1": published(0.1)})
    path = path.rename(weights.parent / "unnamed.safetensors")
    assert load_clip(tiny, str(path)).preprocess["mean"] == (0.1,) * 3  # all known weights agree


@pytest.mark.parametrize(
    "name",
    [
        "openai.pt",
        "ViT-B-32.pt",
        "models--timm--vit_base_patch32_clip_224.openai/open_clip_model.safetensors",
    ],
)
def test_openai_files_are_refused_without_quick_gelu(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    message = complaint(model="ViT-B-32", pretrained=str(path))
    assert "model=ViT-B-32-quickgelu" in message and str(path) in message


def test_the_openai_tag_gets_the_model_with_quick_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def build(source: str, name: str, config: dict[str, Any], **how: Any) -> None:
        asked.append((source, how["pretrained"]))

    monkeypatch.setattr(load, "_answers", lambda url: True)
    monkeypatch.setattr(load, "_build", build)
    for tag in ("openai", "laion400m-e32", "laion2b_s34b_b79k"):
        load_clip("ViT-B-32", tag)
    load_clip("ViT-B-32-quickgelu", "openai")
    assert [source for source, _ in asked] == ["ViT-B-32-quickgelu"] * 2 + ["ViT-B-32", "ViT-B-32-quickgelu"]


def test_offline_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    message = complaint(model="ViT-B-32", pretrained="laion2b_s34b_b79k", cache_dir=str(tmp_path))
    assert "laion2b_s34b_b79k" in message and "local weights file" in message and "flower_clip" in message
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_unreachable_hub_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody answers
    assert "could not get the weights" in complaint(model="ViT-B-32", pretrained="openai", cache_dir=str(tmp_path))
    assert hub.HF_HUB_OFFLINE is False


def test_unknown_names_get_the_nearest_ones(tmp_path: Path) -> None:
    assert "ViT-B-32" in complaint(model="ViT-B32", pretrained="openai")
    assert "laion2b_s34b_b79k" in complaint(model="ViT-B-32", pretrained="laion2b_s34b")
    assert "no such file" in complaint(model="ViT-B-32", pretrained=str(tmp_path / "none.pt"))
    assert "+experiment=flower_clip" in complaint(model="flower_clip", pretrained="flower_clip")


def test_unfit_and_damaged_weights_are_named(tiny: str, weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    assert str(other) in complaint(model=tiny, pretrained=str(other))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert str(weights) in complaint(model=tiny, pretrained=str(weights))
    (tmp_path / "open_clip_config.json").write_text("{")
    assert str(other) in complaint(model=tiny, pretrained=str(other))
    (tmp_path / "open_clip_config.json").unlink()
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"not a pickle")
    assert str(junk) in complaint(model=tiny, pretrained=str(junk))


def test_a_folder_must_be_an_open_clip_folder(tmp_path: Path) -> None:
    assert "open_clip_config.json" in complaint(pretrained=str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert "not a sound open_clip folder" in complaint(pretrained=str(tmp_path))


def test_the_folder_of_a_run_that_trained_one_will_do(clip_run: Path) -> None:
    """What +experiment=flower_clip writes is a run, with the CLIP in clip/."""
    assert load_clip(pretrained=str(clip_run)).fingerprint == load_clip(pretrained=str(clip_run / "clip")).fingerprint


def test_own_models_are_known_to_open_clip() -> None:
    assert {"flower_clip", "flower_clip_small"} <= set(open_clip.list_models())
