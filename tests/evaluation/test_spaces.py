"""Spaces encode some pictures at a time; those that need weights from elsewhere say so offline."""

import pytest
import torch

from lab.errors import LabError
from lab.evaluation import FeatureSpace, inception_space, judge_space, timm_space
from lab.judging import Judge, JudgeNetwork


def test_all_pictures_are_encoded_some_at_a_time() -> None:
    sizes: list[int] = []

    def encode(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return images.flatten(1)[:, :5]

    images = torch.rand(300, 3, 4, 4)
    assert torch.equal(FeatureSpace("some", encode)(images), images.flatten(1)[:, :5])
    assert sizes == [128, 128, 44]


def test_the_judges_space_is_named_by_its_weights() -> None:
    judge = Judge(JudgeNetwork(2), ("a", "b"), 32, {})
    space = judge_space(judge)
    images = torch.rand(2, 3, 32, 32)
    assert judge.fingerprint in space.name
    torch.testing.assert_close(space(images), judge.features(images))


def test_offline_the_others_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LabError, match="space=inception: its weights are out of reach") as inception:
        inception_space()
    with pytest.raises(LabError, match=r"space=timm/no_such_model: cannot be had") as timm:
        timm_space("no_such_model")
    assert "\n" not in f"{inception.value}{timm.value}"
