"""Running statistics that belong to averaged weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def refresh_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure what batch normalisation keeps on some batches again, with the weights as they are now.

    Running statistics belong to the weights of the last steps, not to their average (Izmailov et al.
    2018, "Averaging weights leads to wider optima", section 3.2). The network is left in training mode.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    network.train()
    for batch in batches:
        network(batch)
