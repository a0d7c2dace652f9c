"""Which judge a run gets, and what is said of one that learned other pictures."""

import logging
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from lab.data import ImageSet
from lab.errors import LabError
from lab.evaluation import tools
from lab.evaluation.tools import judge_for
from lab.judging import Judge, JudgeNetwork
from lab.model import DiffusionModel

NAMES = ("daisy", "rose")


def image_set(name: str, content: str, size: int = 8) -> ImageSet:
    pixels = torch.zeros(4, size, size, 3, dtype=torch.uint8)
    return ImageSet(name, pixels, torch.arange(4) % 2, NAMES, size, (), (), content)


def test_a_judge_of_other_held_out_pictures_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = {"top1": 0.5, "top5": 1.0, "images": 4, "fingerprint": "held"}
    judge = Judge(JudgeNetwork(2, [1, 1, 1, 1]), NAMES, 8, {"image_set": "garden", "held_out": told})
    monkeypatch.setattr(tools, "judge_of", lambda *_: judge)
    train, held_out = image_set("garden", "train"), image_set("garden", "held")
    cfg = OmegaConf.create({"judge": None, "space": "judge"})
    with caplog.at_level(logging.WARNING):
        assert judge_for(cfg, train, held_out) is judge
        assert judge_for(cfg, train, image_set("garden", "other size", size=16)) is judge  # nothing can be told
        assert not caplog.records
        for other in (replace(held_out, fingerprint="another split"), image_set("meadow", "held")):
            caplog.clear()
            judge_for(cfg, train, other)
            assert "50.0 % are of other held-out pictures" in caplog.text


def test_without_a_judge_there_are_other_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "judge_of", lambda *_: None)
    some = image_set("garden", "held")
    assert judge_for(OmegaConf.create({"judge": None, "space": "inception"}), some, some) is None
    with pytest.raises(LabError, match="none is kept that knows the classes of garden"):
        judge_for(OmegaConf.create({"judge": None, "space": "judge"}), some, some)


def test_the_space_that_is_named_is_the_one_of_the_judge_or_the_clip(model: DiffusionModel) -> None:
    class Fake:
        name, fingerprint = "small", "f00"

        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    judge, images = Judge(JudgeNetwork(2, [1, 1, 1, 1]), NAMES, 32, {}), torch.rand(2, 3, 32, 32)
    by = {name: OmegaConf.create({"space": name}) for name in ("judge", "clip")}
    of_clip = tools.space_of(by["clip"], judge, Fake(), model)  # type: ignore[arg-type]
    assert of_clip.name == "small f00" and torch.equal(of_clip(images), images.flatten(1))
    of_judge = tools.space_of(by["judge"], judge, None, model)
    torch.testing.assert_close(of_judge(images), judge.features(images))
    with pytest.raises(LabError, match="space=clip: no CLIP knows this run's data"):
        tools.space_of(by["clip"], judge, None, model)
