"""The UNet's pieces against their formulas."""

import math

import pytest
import torch
from pieces import features, perturbed
from torch import nn

from lab.networks.layers import (
    Dropout,
    FilterBank,
    Grow,
    ResidualBlock,
    TimeEmbedding,
    norm,
    sinusoidal,
    zero_,
)


def test_sinusoids_are_their_formula() -> None:
    """Vaswani et al. 2017: angles t / 10000^(i / half), cosines first."""
    embedded = sinusoidal(torch.tensor([0, 7, 999]), 8)
    assert embedded.shape == (3, 8)
    for row, t in enumerate((0, 7, 999)):
        for i in range(4):
            angle = t / 10_000 ** (i / 4)
            assert float(embedded[row, i]) == pytest.approx(math.cos(angle), abs=2e-4)
            assert float(embedded[row, 4 + i]) == pytest.approx(math.sin(angle), abs=2e-4)


def test_every_time_step_is_told_from_its_neighbours() -> None:
    embedded = sinusoidal(torch.arange(1000), 32)
    assert float((embedded[1:] - embedded[:-1]).norm(dim=1).min()) > 0.5
    distances = torch.cdist(embedded, embedded) + 10 * torch.eye(1000)
    assert float(distances.min()) > 0.5


def test_time_embedding_is_an_mlp_of_the_sinusoids() -> None:
    module = TimeEmbedding(8, 12)
    t = torch.tensor([3, 500])
    first, _, second = module.mlp
    expected = second(nn.functional.silu(first(sinusoidal(t, 8))))
    torch.testing.assert_close(module(t), expected)
    assert module(t).shape == (2, 12)


@pytest.mark.parametrize(
    ("channels", "groups"), [(2, 1), (8, 1), (36, 2), (80, 5), (96, 6), (128, 8), (160, 10), (7, 1), (50, 2), (37, 1)]
)
def test_norm_has_groups_of_16_or_the_next_that_divide(channels: int, groups: int) -> None:
    layer = norm(channels)
    assert layer.num_groups == groups
    assert layer(torch.randn(2, channels, 3, 3)).shape == (2, channels, 3, 3)


def test_zero_leaves_nothing() -> None:
    assert all(float(p.detach().abs().sum()) == 0 for p in zero_(nn.Conv2d(3, 4, 3)).parameters())


# -- residual block ----------------------------------------------------------------------------------


def test_a_fresh_block_is_its_skip() -> None:
    x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 5)
    assert torch.equal(ResidualBlock(8, 8, 5, 0.0)(x, embedding), x)
    wider = ResidualBlock(8, 12, 5, 0.0)
    torch.testing.assert_close(wider(x, embedding), wider.skip(x))


def test_a_block_is_its_formula() -> None:
    """Dhariwal & Nichol 2021: AdaGN(h, y) = (1 + y_s) GroupNorm(h) + y_b."""
    block = perturbed(ResidualBlock(8, 12, 5, 0.0))
    assert isinstance(block, ResidualBlock)
    x, embedding = features(2, 8, 4, 6), features(2, 5, seed=2)
    silu = nn.functional.silu
    scale, shift = block.modulation(embedding).view(2, 2, 12, 1, 1).unbind(1)
    h = block.norm2(block.conv1(silu(block.norm1(x))))
    expected = block.skip(x) + block.conv2(silu((1 + scale) * h + shift))
    torch.testing.assert_close(block(x, embedding), expected)


def test_dropout_acts_in_training_only() -> None:
    block = perturbed(ResidualBlock(8, 8, 5, 0.5))
    x, embedding = features(2, 8, 4, 4), features(2, 5, seed=2)
    assert not torch.equal(block(x, embedding), block(x, embedding))
    block.eval()
    assert torch.equal(block(x, embedding), block(x, embedding))


@pytest.mark.parametrize("shape", [(64, 32, 8, 8), (3, 5, 7), (10_001,)])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_that_share_and_keeps_the_mean(shape: tuple[int, ...], p: float) -> None:
    x = torch.ones(shape)
    x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
    torch.manual_seed(0)
    out = Dropout(p)(x)
    assert out.shape == x.shape and out.stride() == x.stride()
    kept = out > 0
    share = round(256 * p) / 256
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / (1 - share)))
    spread = (share * (1 - share) / x.numel()) ** 0.5
    assert float(1 - kept.float().mean()) == pytest.approx(share, abs=5 * spread)


def test_dropout_passes_gradients_where_it_kept() -> None:
    x = torch.randn(4, 6, 3, 3, requires_grad=True)
    out = Dropout(0.3)(x)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, out)


def test_dropout_draws_from_torchs_generator_and_none_alike() -> None:
    x, layer = torch.ones(2, 512), Dropout(0.5)
    torch.manual_seed(3)
    one, other = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), one) and not torch.equal(one, other)
    agree = (one == other).float().mean()  # of independent masks: a half
    assert float(agree) == pytest.approx(0.5, abs=5 * 0.5 / 1024**0.5)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_everything(p: float) -> None:
    assert torch.equal(Dropout(p)(torch.ones(5)), torch.ones(5) * (1 - p))


def test_fresh_filters_add_nothing() -> None:
    assert torch.equal(FilterBank(12, 20, 8)(torch.randn(2, 12, 4, 4), torch.randn(2, 8)), torch.zeros(2, 12, 4, 4))


def test_filters_are_their_formula() -> None:
    module = perturbed(FilterBank(6, 10, 8))
    assert isinstance(module, FilterBank)
    x, embedding = features(2, 6, 5, 5), features(2, 8)
    h = nn.functional.conv2d(x, module.into.weight, padding=1)
    gain, scale, shift = (m[:, :, None, None] for m in module.modulation(embedding).split(10, dim=1))
    linear, shrunk = h * (1 + gain), h * (1 + scale) + shift
    both = torch.cat([linear, shrunk * shrunk.sigmoid()], dim=1)
    assert torch.allclose(module(x, embedding), nn.functional.conv2d(both, module.out.weight))


def test_filters_learn_the_wiener_gain_of_each_noise_level() -> None:
    """White signal of variance 1 under noise of variance s: the best linear estimate is x / (1 + s)."""
    draw = torch.Generator().manual_seed(0)
    levels = torch.tensor([0.1, 1.0, 9.0])
    embedding = torch.eye(3)
    module = FilterBank(4, 20, 3)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(400):
        clean = torch.randn(3, 4, 16, 16, generator=draw)
        noisy = clean + levels.sqrt()[:, None, None, None] * torch.randn(clean.shape, generator=draw)
        error = (module(noisy, embedding) - clean).square().mean()
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        error = (module(noisy, embedding) - clean).square().mean(dim=(1, 2, 3))
    assert torch.allclose(error, levels / (1 + levels), rtol=0.15)


@pytest.mark.parametrize("kernel", [1, 3])
def test_growing_is_a_convolution_of_repeated_places(kernel: int) -> None:
    x, grow = features(2, 5, 4, 3), perturbed(Grow(5, 7, kernel))
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = nn.functional.conv2d(repeated, grow.weight, grow.bias, padding=kernel // 2)
    assert expected.shape == (2, 7, 8, 6)
    torch.testing.assert_close(grow(x), expected)
