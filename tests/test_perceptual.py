"""Distances by features: zero for the same, growing with differences, gradients to images alone."""

from urllib.error import URLError

import open_clip
import pytest
import torch
import torchvision
from torch import nn

from lab.clip.load import quiet
from lab.clip.model import Clip
from lab.clip.task import PREPROCESS
from lab.errors import LabError
from lab.perceptual import PerceptualDistance


@pytest.fixture(scope="module", params=["flower_clip", "flower_clip_small"])
def distance(request: pytest.FixtureRequest) -> PerceptualDistance:
    """By timm's ResNet and by open_clip's own, untrained."""
    torch.manual_seed(0)
    with quiet():
        network = open_clip.create_model(request.param, force_preprocess_cfg=PREPROCESS)
        config = open_clip.get_model_config(request.param)
        return PerceptualDistance.of_clip(Clip(network, open_clip.get_tokenizer(request.param), request.param, config))


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_it_is_its_formula() -> None:
    """Zhang et al. 2018, eq. 1, of two stages written out."""
    first, second = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)
    made = PerceptualDistance([first, second], torch.full((3,), 0.5), torch.full((3,), 0.25))
    one, other = images(), images(1)
    expected = torch.zeros(2)
    features = [(one + 1) / 2, (other + 1) / 2]
    features = [(x - 0.5) / 0.25 for x in features]
    for stage in (first, second):
        features = [stage(x) for x in features]
        cosine = nn.functional.cosine_similarity(*features, dim=1)  # |u - v|^2 = 2 - 2 u . v of unit vectors
        expected += (2 - 2 * cosine).mean(dim=(1, 2))
    torch.testing.assert_close(made(one, other), expected, rtol=1e-4, atol=1e-5)


def test_the_same_is_no_distance_and_noise_adds_to_it(distance: PerceptualDistance) -> None:
    one = images()
    assert distance(one, one).tolist() == [0, 0]
    levels = [distance(one, (one + level * torch.randn(2, 3, 32, 32)).clamp(-1, 1)) for level in (0.05, 0.2, 0.8)]
    assert bool((levels[0] < levels[1]).all()) and bool((levels[1] < levels[2]).all())


def test_gradients_reach_the_image_and_no_weight(distance: PerceptualDistance) -> None:
    made = images(1).requires_grad_()
    distance(made, images()).sum().backward()
    assert made.grad is not None and float(made.grad.abs().sum()) > 0
    assert len(distance.stages) == 5
    modules = [getattr(stage, "__self__", stage) for stage in distance.stages]
    assert all(p.grad is None for module in modules for p in module.parameters())  # type: ignore[union-attr]


def test_a_tower_without_stages_is_refused() -> None:
    class Plain:
        name = "ViT"
        model = nn.Module()

    Plain.model.visual = nn.Linear(1, 1)
    with pytest.raises(LabError, match="ViT has no residual stages"):
        PerceptualDistance.of_clip(Plain())  # type: ignore[arg-type]


def test_vgg_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**_: str) -> nn.Module:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "vgg16", unreachable)
    with pytest.raises(LabError, match=r"reconstruction\.perceptual=vgg.*use flower_clip"):
        PerceptualDistance.of_vgg()


def test_vgg_is_compared_after_each_of_its_five_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torchvision.models.vgg16
    monkeypatch.setattr(torchvision.models, "vgg16", lambda weights: real(weights=None))
    distance = PerceptualDistance.of_vgg()
    x, widths = torch.zeros(1, 3, 32, 32), []
    for stage in distance.stages:
        x = stage(x)  # type: ignore[operator]
        widths.append((x.shape[1], x.shape[2]))
        assert float(x.min()) >= 0  # each ends with a ReLU
    assert widths == [(64, 32), (128, 16), (256, 8), (512, 4), (512, 2)]
