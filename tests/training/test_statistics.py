"""Statistics of normalisations are those of the batches that are shown."""

import torch
from torch import nn

from lab.training.statistics import refresh_statistics


def test_they_are_means_over_the_batches() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2))
    network[0].running_mean.fill_(9)  # type: ignore[union-attr, operator]
    batches = [torch.randn(8, 2, 4, 4) + shift for shift in (0.0, 2.0)]
    refresh_statistics(network, batches)
    expected = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches]).mean(dim=0)
    torch.testing.assert_close(network[0].running_mean, expected)
    assert network.training


def test_a_network_without_them_is_not_run() -> None:
    network = nn.Sequential(nn.GroupNorm(1, 2)).eval()
    refresh_statistics(network, (1 / 0 for _ in range(3)))  # type: ignore[misc]
    assert not network.training
