import json
from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

from lab.clip import Clip, load_clip, save_clip
from lab.clip.load import quiet, training_note
from lab.errors import LabError


def test_what_is_saved_is_what_is_loaded(tiny_clip: Clip, tmp_path: Path) -> None:
    save_clip(tmp_path / "clip", tiny_clip, {"retrieval": {"top1": 0.5}})
    loaded = load_clip(pretrained=str(tmp_path / "clip"))
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    assert loaded.name == tiny_clip.name and loaded.preprocess["mean"] == list(tiny_clip.preprocess["mean"])
    torch.testing.assert_close(loaded.encode_images(images), tiny_clip.encode_images(images), atol=5e-3, rtol=0)
    torch.testing.assert_close(loaded.encode_text(["rose"]), tiny_clip.encode_text(["rose"]), atol=5e-3, rtol=0)


def test_a_second_round_changes_nothing(tiny_clip: Clip, tmp_path: Path) -> None:
    first = load_clip(pretrained=str(save_clip(tmp_path / "one", tiny_clip, {})))
    second = load_clip(pretrained=str(save_clip(tmp_path / "two", first, {})))
    assert first.fingerprint == second.fingerprint


def test_open_clip_reads_the_folder_without_the_lab(tiny_clip: Clip, tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip", tiny_clip, {})
    with quiet():
        network = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)
    assert network.visual.preprocess_cfg["size"] == (32, 32) or network.visual.preprocess_cfg["size"] == 32


def test_the_config_keeps_what_is_known_of_the_training(tiny_clip: Clip, tmp_path: Path) -> None:
    save_clip(tmp_path, tiny_clip, {"retrieval": {"top1": 0.5}, "image_set_fingerprint": "abc"})
    note = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert note["training"] == {"retrieval": {"top1": 0.5}, "image_set_fingerprint": "abc"}
    assert note["preprocessing"] == tiny_clip.preprocessing
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".json") == ["model.safetensors"]


def test_words_that_were_left_out_say_nothing_and_the_others_the_same(tiny_clip: Clip, tmp_path: Path) -> None:
    whole = load_clip(pretrained=str(save_clip(tmp_path / "whole", tiny_clip, {})))
    words = tiny_clip.tokenizer(["a red rose", "a white rose"]).unique()
    small = load_clip(pretrained=str(save_clip(tmp_path / "small", whole, {"seed": 3}, words)))
    known = ["a red rose", "white", "rose red"]
    torch.testing.assert_close(small.encode_text(known), whole.encode_text(known), rtol=0, atol=0)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(small.encode_images(images), whole.encode_images(images), rtol=0, atol=0)
    torch.testing.assert_close(small.encode_text(["a tulip rose"]), small.encode_text(["a daisy rose"]), rtol=0, atol=0)
    assert (whole.encode_text(["a tulip rose"]) - whole.encode_text(["a daisy rose"])).abs().max() > 1e-3
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "whole")]
    assert sizes[0] < sizes[1] / 4
    assert training_note(tmp_path / "small") == {"seed": 3} and training_note(tmp_path / "none") == {}
    assert (small.whole, whole.whole) == (whole.fingerprint, None)
    again = load_clip(pretrained=str(save_clip(tmp_path / "again", small, {}, words)))
    assert again.whole == whole.fingerprint
    assert again.fingerprint == small.fingerprint != whole.fingerprint


def test_words_that_it_does_not_know_are_told_once(
    tiny_clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = tiny_clip.tokenizer(["a red rose"]).unique()
    small = load_clip(pretrained=str(save_clip(tmp_path, tiny_clip, {}, words)))
    assert not caplog.records
    small.encode_text(["a white rose", "a white tulip"])
    assert [record.getMessage() for record in caplog.records] == [
        f"{small.name} has never met, and does not hear: tulip, white"
    ]
    small.encode_text(["a white daisy", "a red rose"])
    assert caplog.records[-1].getMessage().endswith("does not hear: daisy") and len(caplog.records) == 2


@pytest.mark.parametrize("model", ["flower_clip", "flower_clip_small"])
def test_own_models_fit_into_the_repository(model: str, tmp_path: Path) -> None:
    with quiet():
        network: nn.Module = open_clip.create_model(model)
    clip = Clip(network, open_clip.get_tokenizer(model), model, open_clip.get_model_config(model))
    folder = save_clip(tmp_path / model, clip, {})
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25e6


def test_a_folder_that_cannot_be_written_is_named(tiny_clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="file/clip"):
        save_clip(tmp_path / "file" / "clip", tiny_clip, {})


@pytest.mark.parametrize("content", ['{"training": ', "[]", '{"training": 3}'])
def test_a_damaged_note_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises(LabError, match=r"open_clip_config\.json: damaged") as error:
        training_note(tmp_path)
    assert "\n" not in str(error.value)
