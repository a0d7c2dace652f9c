"""A judge is the same after it was stored, takes pictures of any size, and says what it is."""

from pathlib import Path

import pytest
import torch

from lab.errors import LabError
from lab.judging import Judge, JudgeNetwork, load_judge, save_judge

NOTE = {"image_set": "discs", "held_out": {"top1": 0.5, "top5": 1.0, "images": 8}, "seed": 0}


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(0)
    network = JudgeNetwork(3)
    torch.nn.init.normal_(network.last.weight)
    return Judge(network, ("rose", "daisy", "tulip"), 32, NOTE)


def test_it_is_the_same_after_it_was_stored(judge: Judge, tmp_path: Path) -> None:
    again = load_judge(save_judge(tmp_path / "judge", judge))
    assert (again.class_names, again.image_size, again.held_out) == (judge.class_names, 32, NOTE["held_out"])
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(again.logits(images), judge.logits(images), rtol=2e-2, atol=2e-2)  # halved
    assert again.fingerprint == load_judge(tmp_path / "judge").fingerprint != judge.fingerprint


def test_features_are_what_the_last_layer_sees(judge: Judge) -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    features = judge.features(images)
    assert features.shape == (2, 512)
    torch.testing.assert_close(judge.network.last(features), judge.logits(images))


def test_other_sizes_are_resized_to_its_own(judge: Judge) -> None:
    small = torch.zeros(1, 3, 32, 32)
    small[:, 0] = 0.5
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(judge.logits(large), judge.logits(small))


def test_64_px_end_at_4x4(judge: Judge) -> None:
    seen: list[tuple[int, ...]] = []
    judge.network.body.layer4.register_forward_hook(lambda module, given, out: seen.append(tuple(out.shape)))
    judge.network(torch.zeros(1, 3, 64, 64))
    assert seen == [(1, 512, 4, 4)]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "judge.json").unlink(), r"no judge\.json and model\.safetensors there"),
        (lambda folder: (folder / "judge.json").write_text("{"), "not a sound judge"),
        (lambda folder: (folder / "judge.json").write_text('{"class_names": []}'), "not a sound judge"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 40), "not a sound judge"),
    ],
)
def test_a_damaged_folder_is_named(judge: Judge, tmp_path: Path, damage: object, words: str) -> None:
    save_judge(tmp_path, judge)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(LabError, match=words):
        load_judge(tmp_path)
