"""Models so small that sampling from them takes milliseconds."""

from collections.abc import Callable

import pytest
import torch

from lab.autoencoders import Identity
from lab.conditioning import ClassEmbedding, Conditioner
from lab.diffusion import NoiseSchedule, Parameterization
from lab.model import DiffusionModel, SamplingDefaults
from lab.networks import UNet

CLASSES = ("rose", "daisy", "tulip")


def build(
    prediction_type: str = "v", conditioner: Conditioner | None = None, autoencoder: Identity | None = None
) -> DiffusionModel:
    """Latents of 8x8, three classes, and every weight drawn anew: condition, time and noise all matter."""
    autoencoder = autoencoder or Identity()
    conditioner = conditioner or ClassEmbedding(6, class_names=CLASSES)
    network = UNet(
        in_channels=autoencoder.latent_channels,
        sample_size=8,
        condition_dim=conditioner.dim,
        channels=8,
        multipliers=(1, 2),
        blocks=1,
        linear_attention=(8,),
        full_attention=(4,),
        head_dim=8,
    )
    draw = torch.Generator().manual_seed(0)
    for module, scale in ((network, 0.15), (conditioner, 2.0)):
        for parameter in module.parameters():
            parameter.data = scale * torch.randn(parameter.shape, generator=draw)
    formulas = Parameterization(NoiseSchedule("cosine", 100), prediction_type)
    defaults = SamplingDefaults(num_inference_steps=6, guidance_scale=2.0)
    size = 8 * autoencoder.factor
    return DiffusionModel(network, conditioner, autoencoder, formulas, size, defaults).eval()


@pytest.fixture
def tiny_model() -> Callable[..., DiffusionModel]:
    """`build` above: tiny_model(prediction_type="v", conditioner=None, autoencoder=None)."""
    return build


@pytest.fixture
def model() -> DiffusionModel:
    """A tiny class-conditional model that predicts v."""
    return build()
