"""The judge's network: torchvision's ResNet, with a stem for small pictures."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet


class JudgeNetwork(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1], 32 px at least -> logits (B, classes); `features` stops before the last layer.

    He et al. 2016 with a 3x3 stem of stride 2 and no pooling behind it, so that 64 px end at 4x4 and not at 2x2.
    blocks   residual blocks of each of the four stages
    dropout  before the last layer
    """

    def __init__(self, classes: int, blocks: Sequence[int] = (1, 1, 1, 1), dropout: float = 0.2) -> None:
        super().__init__()
        self.body = ResNet(BasicBlock, list(blocks), num_classes=classes, zero_init_residual=True)
        self.body.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.body.maxpool = nn.Identity()  # type: ignore[assignment]
        self.last, self.body.fc = self.body.fc, nn.Identity()  # type: ignore[assignment]
        self.dropout = nn.Dropout(dropout)

    def features(self, images: Tensor) -> Tensor:
        """(B, 512), means over places: the space in which pictures are compared."""
        out: Tensor = self.body(images.contiguous(memory_format=torch.channels_last))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        out: Tensor = self.last(self.dropout(self.features(images)))
        return out
