"""Shared by the tests beside it: modules and features with nothing at zero."""

import torch
from torch import Tensor, nn


def perturbed(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with every parameter drawn anew: nothing is zero-initialised any more."""
    draw = torch.Generator().manual_seed(seed)
    module.double()
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return module


def features(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
