"""Other people's networks, of about the lab's size, for the benchmark; from the optional extra `bench`."""

import importlib.util
import logging
from collections.abc import Callable

from torch import Tensor, nn

logger = logging.getLogger(__name__)
CLASSES = 102


class _Diffusers(nn.Module):
    """diffusers' UNet2DModel with a class embedding and attention at 16 and 8 px."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d import UNet2DModel

        self.network = UNet2DModel(
            sample_size=64,
            layers_per_block=2,
            block_out_channels=(80, 80, 160, 160),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            attention_head_dim=40,
            norm_num_groups=20,
            num_class_embeds=CLASSES,
        )

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.network(x, t, labels).sample
        return out


class _Lucidrains(nn.Module):
    """denoising-diffusion-pytorch's class-conditional UNet."""

    def __init__(self) -> None:
        super().__init__()
        from denoising_diffusion_pytorch.classifier_free_guidance import Unet

        self.network = Unet(dim=36, num_classes=CLASSES, dim_mults=(1, 2, 4, 8), cond_drop_prob=0.1)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.network(x, t, labels)
        return out


def peers(which: str) -> dict[str, Callable[[], nn.Module]]:
    """The installed peers of the network `which`; without the door only diffusers, whose widths it has."""
    known: dict[str, tuple[str, Callable[[], nn.Module]]] = {
        "diffusers UNet2DModel": ("diffusers", _Diffusers),
        "lucidrains' class-conditional Unet": ("denoising_diffusion_pytorch", _Lucidrains),
    }
    chosen = {name: peer for name, peer in known.items() if which == "door" or "diffusers" in name}
    for name, (package, _) in chosen.items():
        if importlib.util.find_spec(package) is None:
            logger.warning("%s is left out: pip install -c constraints.txt -e '.[bench]'", name)
    return {name: make for name, (package, make) in chosen.items() if importlib.util.find_spec(package) is not None}
