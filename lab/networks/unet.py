"""The conditional UNet: pixels or latents in, a tensor of the same shape out."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.conditioning.base import Condition
from lab.errors import LabError
from lab.networks.attention import ATTENTION, SpatialTransformer
from lab.networks.layers import FilterBank, Grow, ResidualBlock, TimeEmbedding, norm, zero_


class _Stage(nn.Module):
    """A residual block and, where the resolution asks for it, attention."""

    def __init__(self, block: ResidualBlock, attention: nn.Module) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor | None) -> Tensor:
        h = self.block(x, embedding)
        out: Tensor = self.attention(h, tokens) if isinstance(self.attention, SpatialTransformer) else self.attention(h)
        return out


class UNet(nn.Module):
    """Time- and condition-modulated UNet (Ho et al. 2020; Dhariwal & Nichol 2021) with a choice of attentions.

    Its output is the sum of the UNet's and a `FilterBank`'s: behind a door the first level is no wider than what
    comes through, and without the filters it would have to carry fine detail and noise beside everything else.

    in_channels     channels of x: 3 pixels, or the latents'
    sample_size     height and width the lists of resolutions refer to; other sizes run too (`factor` must divide)
    condition_dim   width of `condition.vector`; 0 for none
    token_dim       width of `condition.tokens`; with any, attention becomes a `SpatialTransformer` that looks at them
    patch_size      space-to-depth door: patch_size^2 as many channels at 1/patch_size of the resolution
    channels, multipliers   width of each level, highest resolution first; each level halves the resolution
    blocks          residual blocks a level on the way down, as many (with skips) on the way up
    upsample_kernel side of the convolution that follows each doubling of the resolution: 3, or 1, which costs little
    linear_attention, full_attention   resolutions (behind the door) at which blocks are followed by attention; one
                    that more levels, or a larger sample, would have is passed over: one list serves many sizes

    Raises LabError when a size does not divide, or a resolution is listed that no such level can have.
    """

    def __init__(
        self,
        in_channels: int = 3,
        sample_size: int = 64,
        condition_dim: int = 0,
        token_dim: int = 0,
        patch_size: int = 1,
        channels: int = 96,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        upsample_kernel: int = 3,
        linear_attention: Sequence[int] = (16,),
        full_attention: Sequence[int] = (8, 4),
        head_dim: int = 32,
        embedding_dim: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.patch_size, self.token_dim = patch_size, token_dim
        embedding_dim = 4 * channels if embedding_dim is None else embedding_dim
        self._check_positive(
            patch_size=patch_size, channels=channels, multipliers=multipliers, blocks=blocks, head_dim=head_dim,
            embedding_dim=embedding_dim,
        )  # fmt: skip
        self.factor = patch_size * 2 ** (len(multipliers) - 1)
        if sample_size < 1 or sample_size % self.factor:
            raise LabError(
                f"model.sample_size={sample_size}: the network takes multiples of {self.factor} (patch_size x 2 a "
                "level); change data.image_size"
            )
        if channels % 2:
            raise LabError(f"model.channels={channels}: use an even number")  # as many sines as cosines
        widths = [channels * m for m in multipliers]
        resolutions = [sample_size // patch_size // 2**level for level in range(len(widths))]
        kinds = self._attention_kinds(resolutions, linear_attention, full_attention)
        if token_dim and not any(kinds):
            raise LabError("model.full_attention=[]: tokens are looked at where attention is; list a resolution for it")
        if upsample_kernel not in (1, 3):
            raise LabError(f"model.upsample_kernel={upsample_kernel}: use 1 or 3")
        dim = embedding_dim

        def stage(c_in: int, c_out: int, level: int) -> _Stage:
            kind = kinds[level]
            attention: nn.Module = ATTENTION[kind](c_out, head_dim) if kind else nn.Identity()
            if kind and token_dim:
                attention = SpatialTransformer(attention, c_out, head_dim, token_dim)
            return _Stage(ResidualBlock(c_in, c_out, dim, dropout), attention)

        self.time = TimeEmbedding(channels, dim)
        self.condition = nn.Linear(condition_dim, dim) if condition_dim else None
        door = in_channels * patch_size**2
        self.stem = nn.Conv2d(door, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        for level, w in enumerate(widths):
            self.down.append(nn.ModuleList(stage(width if i == 0 else w, w, level) for i in range(blocks)))
            last = level == len(widths) - 1
            self.shrink.append(nn.Identity() if last else nn.Conv2d(w, w, 3, stride=2, padding=1))
            width = w
        self.middle = nn.ModuleList(stage(width, width, len(widths) - 1) for _ in range(2))
        for level, w in reversed(list(enumerate(widths))):
            self.up.append(nn.ModuleList(stage(2 * w, w, level) for _ in range(blocks)))
            above = widths[max(level - 1, 0)]  # narrowed here, since the wider level would be costly above
            self.grow.append(nn.Identity() if level == 0 else Grow(w, above, upsample_kernel))
        self.head = nn.Sequential(norm(widths[0]), nn.SiLU(), zero_(nn.Conv2d(widths[0], door, 3, padding=1)))
        self.filters = FilterBank(door, 5 * door, dim)

    @staticmethod
    def _check_positive(**sizes: int | Sequence[int]) -> None:
        for key, size in sizes.items():
            numbers = [size] if isinstance(size, int) else list(size)
            if not numbers or min(numbers) < 1:
                raise LabError(f"model.{key}={size}: use at least 1")

    @staticmethod
    def _attention_kinds(resolutions: list[int], linear: Sequence[int], full: Sequence[int]) -> list[str | None]:
        for key, chosen in (("linear_attention", linear), ("full_attention", full)):
            for resolution in chosen:
                small, large = sorted((resolution, resolutions[0]))
                if small < 1 or large % small or (large // small).bit_count() != 1:  # halvings apart, no typing mistake
                    raise LabError(
                        f"model.{key}={list(chosen)}: no level has {resolution}, they have {resolutions}: use those"
                    )
        return ["full" if r in full else "linear" if r in linear else None for r in resolutions]

    def check_size(self, height: int, width: int) -> None:
        """LabError unless both sides are multiples of what the door and the levels divide by."""
        if height < 1 or width < 1 or height % self.factor or width % self.factor:
            raise LabError(
                f"size {height}x{width}: the network takes multiples of {self.factor} (patch_size x 2 a level)"
            )

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x (B, C, H, W), t (B,) time steps, condition.vector (B, condition_dim) -> (B, C, H, W)."""
        embedding, tokens = self._embed(t, condition), None if condition is None else condition.tokens
        if self.token_dim and tokens is None:
            raise ValueError("this network was built with token_dim > 0: give it a Condition with tokens")
        x = F.pixel_unshuffle(x, self.patch_size) if self.patch_size > 1 else x
        h = self.stem(x)
        skips: list[Tensor] = []
        for stages, shrink in zip(self.down, self.shrink, strict=True):
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(h, embedding, tokens)
                skips.append(h)
            h = shrink(h)
        for stage in self.middle:
            h = stage(h, embedding, tokens)
        for stages, grow in zip(self.up, self.grow, strict=True):
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(torch.cat([h, skips.pop()], dim=1), embedding, tokens)
            h = grow(h)
        out: Tensor = self.head(h) + self.filters(x, embedding)
        return F.pixel_shuffle(out, self.patch_size) if self.patch_size > 1 else out

    def _embed(self, t: Tensor, condition: Condition | None) -> Tensor:
        embedding: Tensor = self.time(t)
        if self.condition is not None:
            if condition is None:
                raise ValueError("this network was built with condition_dim > 0: give it a Condition")
            embedding = embedding + self.condition(condition.vector)
        return F.silu(embedding)
