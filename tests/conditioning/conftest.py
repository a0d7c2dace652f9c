"""What conditions on CLIP is prepared with a stand-in for it."""

from pathlib import Path

import pytest
from fake_clip import FakeClip, image_set

from lab.conditioning import ClipVector
from lab.conditioning import clip as clip_module


@pytest.fixture
def clip(monkeypatch: pytest.MonkeyPatch) -> FakeClip:
    fake = FakeClip()
    monkeypatch.setattr(clip_module, "load_clip", lambda model, pretrained: fake)
    return fake


@pytest.fixture
def prepared(clip: FakeClip, tmp_path: Path) -> ClipVector:
    conditioner = ClipVector()
    conditioner.prepare(image_set(), str(tmp_path))
    return conditioner
