"""Attention against naive loops and formulas."""

from collections.abc import Callable

import pytest
import torch
from pieces import features, perturbed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lab.errors import LabError
from lab.networks.attention import (
    ATTENTION,
    CrossAttention,
    FeedForward,
    FullAttention,
    LinearAttention,
    SpatialTransformer,
)


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
