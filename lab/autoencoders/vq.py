"""An autoencoder whose latents are snapped to the entries of a codebook."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from lab.autoencoders.base import Pass
from lab.autoencoders.networks import ConvolutionalAutoencoder
from lab.errors import LabError


class Codebook(nn.Module):
    """`size` vectors of `dim` numbers; each place of a latent becomes the nearest (van den Oord et al. 2017).

    Entries learn by the codebook loss. One that is hardly ever chosen starts anew from what the encoder puts out
    (Zeghidour et al. 2021, "SoundStream", section III.C), as all do at first.

    usage   (size,) buffer: how often each entry is chosen against an even share, averaged over about 100 batches
    """

    usage: Tensor
    DECAY, DEAD = 0.99, 0.01

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.entries = nn.Parameter(torch.randn(size, dim))
        self.register_buffer("usage", torch.zeros(size))

    def choose(self, z: Tensor) -> Tensor:
        """z (B, C, h, w) -> numbers of the nearest entries (B, h, w)."""
        # float64, which neither autocast nor TF32 rounds: entries may lie close
        rows, entries = z.permute(0, 2, 3, 1).flatten(0, 2).double(), self.entries.double()
        # |z - e|^2 but for |z|^2, which is the same for every entry
        chosen = (entries.square().sum(dim=1) - 2 * rows @ entries.T).argmin(dim=1)
        return chosen.view(z.shape[0], *z.shape[2:])

    def look_up(self, chosen: Tensor) -> Tensor:
        """Numbers (B, h, w) -> entries (B, C, h, w)."""
        return F.embedding(chosen, self.entries).permute(0, 3, 1, 2)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, C, h, w) snapped; gradients pass as if it had not been (the straight-through estimator)."""
        snapped = self.look_up(self.choose(z))
        return z + (snapped - z).detach()

    @torch.no_grad()
    def count(self, chosen: Tensor) -> Tensor:
        """Take note of what a batch chose, over all processes; returns its perplexity (): entries in even use."""
        counts = torch.bincount(chosen.flatten(), minlength=len(self.usage)).float()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        share = counts / counts.sum()
        self.usage.lerp_(share * len(self.usage), 1 - self.DECAY)
        return torch.special.entr(share).sum().exp()

    @torch.no_grad()
    def revive(self, z: Tensor) -> Tensor:
        """Start unused entries anew at random places of z (B, C, h, w); returns how many ()."""
        dead = self.usage < self.DEAD
        rows = z.permute(0, 2, 3, 1).flatten(0, 2).float()
        fresh = rows[torch.randint(len(rows), (len(dead),), device=rows.device)]
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(fresh, 0)
        self.entries.copy_(torch.where(dead[:, None], fresh, self.entries))
        self.usage.masked_fill_(dead, 1.0)
        return dead.sum()


class AutoencoderVQ(ConvolutionalAutoencoder):
    """Moments are latents before they are snapped (B, C, h, w), which is what diffusion works on; the decoder snaps.

    codebook_size       entries
    codebook_weight     of the entries' distance to latents against the absolute error
    commitment          of the latents' distance to entries, as a share of that (van den Oord et al. 2017, eq. 3)
    The rest as in ConvolutionalAutoencoder. Raises LabError for sizes that cannot be.
    """

    def __init__(
        self,
        factor: int = 4,
        latent_channels: int = 4,
        patch_size: int = 2,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2, 3),
        blocks: int = 2,
        attention: bool = True,
        codebook_size: int = 1024,
        codebook_weight: float = 1.0,
        commitment: float = 0.25,
    ) -> None:
        shape = (patch_size, channels, multipliers, blocks, attention)
        super().__init__(factor, latent_channels, latent_channels, *shape)
        for key, value, least in (("codebook_size", codebook_size, 1), ("codebook_weight", codebook_weight, 0)):
            if value < least:
                raise LabError(f"autoencoder.{key}={value}: use at least {least}")
        if commitment < 0:
            raise LabError(f"autoencoder.commitment={commitment}: use 0 or more")
        self.codebook_weight, self.commitment = codebook_weight, commitment
        self.codebook = Codebook(codebook_size, latent_channels)

    def draw(self, moments: Tensor, eps: Tensor | None = None) -> Tensor:
        return moments

    def reconstruct(self, z: Tensor) -> Tensor:
        return self._decoded(self.codebook(z))

    def training_pass(self, images: Tensor, eps: Tensor) -> Pass:
        z = self.moments(images)
        revived = self.codebook.revive(z) if self.training else z.new_zeros(())
        chosen = self.codebook.choose(z)
        perplexity = self.codebook.count(chosen) if self.training else z.new_zeros(())
        snapped = self.codebook.look_up(chosen)
        codebook = (z.detach() - snapped).square().mean(dim=(1, 2, 3))
        commitment = (z - snapped.detach()).square().mean(dim=(1, 2, 3))
        decoded = self._decoded(z + (snapped - z).detach())
        facts = {"perplexity": perplexity, "revived": revived.float(), "codebook": codebook.detach()}
        return Pass(decoded, self.codebook_weight * (codebook + self.commitment * commitment), facts)
