"""Spaces encode some pictures at a time; those that need weights from elsewhere say so offline."""

import pytest
import torch
from PIL import Image

from lab.errors import LabError
from lab.evaluation import (
    FeatureSpace,
    inception_space,
    judge_space,
    open_clip_space,
    pixel_space,
    spaces,
    timm_space,
)
from lab.judging import Judge, JudgeNetwork
from lab.render import from_uint8


def test_all_pictures_are_encoded_some_at_a_time() -> None:
    sizes: list[int] = []

    def encode(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return images.flatten(1)[:, :5]

    images = torch.rand(300, 3, 4, 4)
    assert torch.equal(FeatureSpace("some", encode)(images), images.flatten(1)[:, :5])
    assert sizes == [128, 128, 44]


def test_a_picture_takes_as_long_as_in_the_fastest_of_three_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 32.0, 40.0, 56.0, 60.0, 92.0])
    monkeypatch.setattr(spaces.time, "perf_counter", lambda: next(ticks))
    assert FeatureSpace("some", lambda images: images.flatten(1)).seconds(torch.rand(60, 3, 2, 2)) == 1.0


def test_the_judges_space_is_named_by_its_weights() -> None:
    judge = Judge(JudgeNetwork(2), ("a", "b"), 32, {})
    space = judge_space(judge)
    images = torch.rand(2, 3, 32, 32)
    assert judge.fingerprint in space.name
    torch.testing.assert_close(space(images), judge.features(images))


def test_pixels_are_compared_by_their_means_over_tiles() -> None:
    images = torch.rand(3, 3, 64, 64)
    features = pixel_space()(images)
    assert features.shape == (3, 3 * 16 * 16)
    torch.testing.assert_close(features[0, 17], images[0, 0, 4:8, 4:8].mean())
    assert pixel_space()(images[..., :8, :8]).shape == (3, 3 * 8 * 8)  # which has no more


def test_timm_models_get_pictures_as_they_were_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    network = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: network)
    side = resolve_data_config({}, model=network)["input_size"][-1]
    pixels = torch.randint(256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepare = create_transform(**{**resolve_data_config({}, model=network), "crop_pct": 1.0})
    theirs = torch.stack([prepare(Image.fromarray(one.numpy())) for one in pixels])  # type: ignore[operator]
    found = timm_space("test_resnet")(from_uint8(pixels))
    with torch.no_grad():
        torch.testing.assert_close(found, network(theirs), rtol=1e-3, atol=1e-4)


def test_inception_gets_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        def __init__(self, **_: object) -> None:
            super().__init__()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.dtype == torch.uint8
            return images.flatten(1).float()

    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", Network)
    pixels = torch.randint(256, (2, 4, 4, 3), dtype=torch.uint8)
    assert torch.equal(inception_space()(from_uint8(pixels)), pixels.permute(0, 3, 1, 2).flatten(1).float())


def test_open_clip_models_are_named_with_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    class Stub:
        name, fingerprint = "ViT-B-32", "00ff"

        def to(self, device: str) -> "Stub":
            return self

        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    def stub(model: str, pretrained: str) -> Stub:
        asked.append((model, pretrained))
        return Stub()

    monkeypatch.setattr("lab.evaluation.spaces.load_clip", stub)
    space = open_clip_space("ViT-B-32/laion2b_s34b_b79k")
    assert asked == [("ViT-B-32", "laion2b_s34b_b79k")] and space.name == "ViT-B-32 00ff"
    assert space(torch.zeros(2, 3, 4, 4)).shape == (2, 48)


def test_offline_the_others_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LabError, match="space=inception: its weights are out of reach") as inception:
        inception_space()
    with pytest.raises(LabError, match=r"space=timm/no_such_model: cannot be had") as timm:
        timm_space("no_such_model")
    with pytest.raises(LabError, match="no_such_model"):
        open_clip_space("no_such_model/weights")
    assert "\n" not in f"{inception.value}{timm.value}"
