"""Inversion of what a small trained model knows: how its error falls with levels and with fixed-point iterations."""

import pytest
import torch
from torch import Tensor

from lab.autoencoders import Identity
from lab.conditioning import Unconditional
from lab.data import BatchStream, ImageSet
from lab.diffusion import NoiseSchedule, Parameterization
from lab.editing import invert
from lab.model import DiffusionModel
from lab.networks import UNet
from lab.training import DiffusionTask, Trainer, TrainingSettings

SIZE = 8
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Pictures of four colours, one a corner, with soft borders between them."""
    corners = torch.rand(64, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(corners, size=SIZE, mode="bilinear").permute(0, 2, 3, 1)
    return ImageSet("corners", (pixels * 255).byte(), torch.full((64,), -1), (), SIZE, (), (), "0" * 16)


@pytest.fixture(scope="module")
def trained(images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    """Some seconds of training: samples then have the pictures' smoothness."""
    torch.manual_seed(0)
    network = UNet(
        sample_size=SIZE, channels=24, multipliers=(1, 2), blocks=1, linear_attention=(), full_attention=(4,),
        head_dim=24, dropout=0.0,
    )  # fmt: skip
    formulas = Parameterization(NoiseSchedule("cosine"), "v")
    model = DiffusionModel(network, Unconditional(), Identity(), formulas, SIZE)
    settings = TrainingSettings(
        steps=300, batch_size=32, lr=3e-3, lr_warmup=20, lr_decay=True, log_every=0, preview_every=0, save_every=0,
        ema_decay=0.9, precision="fp32",
    )  # fmt: skip
    Trainer(DiffusionTask(model, BatchStream(images, 32, 0), 0), tmp_path_factory.mktemp("run"), settings, 0).run()
    return model.eval()


def error(model: DiffusionModel, pictures: Tensor, steps: int, iterations: int) -> float:
    """Root mean square difference of what comes back; trailing spacing would leave too large a last step."""
    condition, settings = model.conditioner.null(len(pictures)), {"num_inference_steps": steps, "spacing": "karras"}
    back = invert(model, pictures, condition, fixed_point_iterations=iterations, **settings)
    return float((back.reconstruction - pictures).square().mean().sqrt())


def test_the_error_falls_as_one_over_the_levels(trained: DiffusionModel, images: ImageSet) -> None:
    pictures = images.view(torch.arange(2))
    errors = [error(trained, pictures, steps, 1) for steps in (20, 40, 80)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.2)


def test_iterations_cut_it_by_three_and_more(trained: DiffusionModel, images: ImageSet) -> None:
    pictures = images.view(torch.arange(2))
    for steps, factor in ((20, 3), (40, 10)):
        assert error(trained, pictures, steps, 1) > factor * error(trained, pictures, steps, 3)
