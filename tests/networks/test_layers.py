"""The UNet's pieces against their formulas, and attention against naive loops."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lab.errors import LabError
from lab.networks.layers import (
    ATTENTION,
    CrossAttention,
    Dropout,
    FeedForward,
    FilterBank,
    FullAttention,
    LinearAttention,
    ResidualBlock,
    SpatialTransformer,
    TimeEmbedding,
    norm,
    sinusoidal,
    zero_,
)


def perturbed(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with every parameter drawn anew: nothing is zero-initialised any more."""
    draw = torch.Generator().manual_seed(seed)
    module.double()
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return module


def features(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


# -- attention ---------------------------------------------------------------------------------------


def test_full_attention_is_the_same_with_and_without_gradients() -> None:
    """Two kernels on the CPU: one that trains faster, one that needs no N^2 weights."""
    module = perturbed(FullAttention(64, 32))
    x = features(2, 64, 4, 6)
    trained = module(x.clone().requires_grad_())
    with torch.no_grad():
        torch.testing.assert_close(module(x), trained)


def naive_full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head, q, k, v (d, N): place i gathers v_j by softmax_j(q_i . k_j / sqrt d)."""
    out = torch.zeros_like(v)
    for i in range(q.shape[1]):
        scores = torch.stack([q[:, i] @ k[:, j] for j in range(k.shape[1])]) / q.shape[0] ** 0.5
        out[:, i] = sum(p * v[:, j] for j, p in enumerate(scores.softmax(0)))
    return out


def naive_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head, q, k, v (d, N): the N x N weights written out, softmax over q's channels and k's places."""
    weights = (q.softmax(0) / q.shape[0] ** 0.5).T @ k.softmax(1)  # (N, N)
    return (weights @ v.T).T


@pytest.mark.parametrize(("kind", "naive"), [("full", naive_full), ("linear", naive_linear)])
def test_attention_is_its_naive_reference(kind: str, naive: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    channels, head_dim, height, width = 12, 4, 3, 5
    module = ATTENTION[kind](channels, head_dim)
    perturbed(module)
    x = features(2, channels, height, width)
    expected = torch.zeros_like(x)
    for b in range(2):
        rows = module.qkv(module.norm(x[b : b + 1]))[0].flatten(1)  # (3 C, N)
        q, k, v = rows[:channels], rows[channels : 2 * channels], rows[2 * channels :]
        heads = [slice(i, i + head_dim) for i in range(0, channels, head_dim)]
        mixed = torch.cat([naive(q[s], k[s], v[s]) for s in heads])
        expected[b] = x[b] + module.out(mixed.view(1, channels, height, width))[0]
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("kind", list(ATTENTION))
def test_fresh_attention_is_the_identity(kind: str) -> None:
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ATTENTION[kind](8, 4)(x), x)


@pytest.mark.parametrize("kind", list(ATTENTION))
def test_attention_reaches_every_place_of_its_own_sample(kind: str) -> None:
    module = perturbed(ATTENTION[kind](8, 4))
    x = features(2, 8, 4, 4).requires_grad_()
    module(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert bool((x.grad[0].abs().amax(dim=0) > 0).all())
    assert float(x.grad[1].abs().max()) == 0


def mixing_flops(kind: type[FullAttention] | type[LinearAttention], side: int) -> int:
    """Multiplications between places and between channels, at side^2 places."""
    q, k, v = torch.randn(3, 1, 2, 4, side**2)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        kind(8, 4).mix(q, k, v)
    return int(counter.get_total_flops())


def test_linear_attention_is_linear_and_full_is_quadratic_in_the_number_of_places() -> None:
    heads, head_dim = 2, 4
    for side in (8, 16, 32):
        places = side**2
        assert mixing_flops(LinearAttention, side) == 2 * 2 * heads * head_dim**2 * places
        assert mixing_flops(FullAttention, side) == 2 * 2 * heads * head_dim * places**2


def test_heads_split_the_channels() -> None:
    assert FullAttention(80, 40).heads == 2
    assert LinearAttention(96, 40).heads == 2  # 48 each: head_dim is a wish, the channels are given
    assert FullAttention(16, 32).heads == 1
    with pytest.raises(LabError, match=r"^model.head_dim=30: 100 channels [^\n]*$"):
        FullAttention(100, 30)


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


# -- tokens ------------------------------------------------------------------------------------------


def test_cross_attention_is_its_formula_head_by_head() -> None:
    module = perturbed(CrossAttention(8, 4, token_dim=5))
    assert isinstance(module, CrossAttention)
    x, tokens = features(2, 8, 3, 2), features(2, 7, 5, seed=2)
    q = module.q(module.norm(x)).reshape(2, 8, 6)
    k, v = module.kv(tokens).chunk(2, dim=2)  # (B, L, C) each
    expected = torch.zeros(2, 8, 6, dtype=torch.float64)
    for b in range(2):
        for head in (slice(0, 4), slice(4, 8)):
            weights = (q[b, head].T @ k[b, :, head].T / 2).softmax(dim=1)  # sqrt(4)
            expected[b, head] = (weights @ v[b, :, head]).T
    torch.testing.assert_close(module(x, tokens), x + module.out(expected.view(2, 8, 3, 2)))


def test_feed_forward_is_its_formula_place_by_place() -> None:
    """Shazeer 2020: (x W) * GELU(x V), then back."""
    module = perturbed(FeedForward(8))
    assert isinstance(module, FeedForward)
    x = features(2, 8, 3, 2)
    values, gates = module.into(module.norm(x)).split(16, dim=1)
    torch.testing.assert_close(module(x), x + module.out(values * nn.functional.gelu(gates)))


def test_a_fresh_transformer_is_the_identity_and_each_sample_hears_its_own_tokens() -> None:
    fresh = SpatialTransformer(FullAttention(8, 4), 8, 4, token_dim=5)
    x, tokens = torch.randn(2, 8, 3, 2), torch.randn(2, 7, 5)
    assert torch.equal(fresh(x, tokens), x)
    module = perturbed(SpatialTransformer(LinearAttention(8, 4), 8, 4, token_dim=5))
    x, tokens = features(2, 8, 3, 2), features(2, 7, 5, seed=2)
    other = tokens.clone()
    other[1] += 1
    moved = (module(x, other) - module(x, tokens)).detach().abs().flatten(1).max(dim=1).values
    assert float(moved[0]) == 0 and float(moved[1]) > 1e-3
