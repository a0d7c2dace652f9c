"""How often pictures are taken for the class that they should show."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

AT_A_TIME = 128  # pictures looked at together
AMONG = 5  # guesses that count as near


def recognised(
    scores: Callable[[Tensor], Tensor], images: Tensor, classes: Tensor | Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Whether each picture's class comes first, and among the first five: two (B,) of bool.

    scores   pictures (b, 3, H, W) in [-1, 1] -> (b, C) of all classes, e.g. a judge's logits
    images   (B, 3, H, W); classes (B,), the one that each should show
    """
    found = torch.cat([scores(part) for part in images.split(AT_A_TIME)])
    ranked = found.topk(min(AMONG, found.shape[1]), dim=1).indices == torch.as_tensor(classes)[:, None]
    return ranked[:, 0], ranked.any(dim=1)
