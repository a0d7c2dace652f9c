"""The UNet as a whole: shapes, gradients, what it listens to, and what it refuses."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.conditioning import Condition
from lab.errors import LabError
from lab.networks import UNet
from lab.networks.attention import FullAttention, LinearAttention

SMALL: dict[str, Any] = {
    "sample_size": 16,
    "condition_dim": 6,
    "channels": 8,
    "multipliers": (1, 2, 2),
    "blocks": 1,
    "linear_attention": (8,),
    "full_attention": (4,),
    "head_dim": 8,
}


def small(**changes: Any) -> UNet:
    """A tiny network in float64 and eval mode with every parameter drawn anew."""
    network = UNet(**{**SMALL, **changes}).double().eval()
    draw = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.15 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return network


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(batch: int = 2, height: int = 16, width: int = 16) -> tuple[Tensor, Tensor, Condition]:
    return randn(batch, 3, height, width), torch.arange(batch) * 300 + 10, Condition(randn(batch, 6, seed=2))


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (32, 16), (4, 4), (20, 12)])
def test_what_comes_out_has_the_shape_of_what_went_in(size: tuple[int, int]) -> None:
    x, t, condition = inputs(2, *size)
    out = small()(x, t, condition).detach()
    assert out.shape == x.shape and bool(out.isfinite().all()) and float(out.std()) > 1e-3


@pytest.mark.parametrize("changes", [{}, {"patch_size": 2, "full_attention": (2,)}, {"condition_dim": 0}])
def test_a_fresh_network_says_zero(changes: dict[str, Any]) -> None:
    x, t, condition = inputs()
    out = UNet(**{**SMALL, **changes})(x.float(), t, Condition(condition.vector.float()))
    assert out.shape == x.shape and float(out.detach().abs().max()) == 0


@pytest.mark.parametrize(
    "changes", [{}, {"patch_size": 2, "full_attention": (2,)}, {"blocks": 2}, {"condition_dim": 0}]
)
def test_gradients_reach_every_parameter(changes: dict[str, Any]) -> None:
    network = small(**changes)
    x, t, condition = inputs()
    network(x, t, condition).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not float(p.grad.abs().max()) > 0]
    assert silent == []


def test_a_fresh_network_learns() -> None:
    """Zero-initialised branches open: a few steps of Adam halve the error of predicting a fixed picture."""
    torch.manual_seed(0)
    network = UNet(**{**SMALL, "dropout": 0.0})
    x, t, condition = inputs(2, 8, 8)
    x, condition = x.float(), Condition(condition.vector.float())
    target = x.tanh().flip(-1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        loss = (network(x, t, condition) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_condition_time_and_picture_matter_each_to_its_own_sample() -> None:
    network = small()
    x, t, condition = inputs()
    before = network(x, t, condition)
    second = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    changed = {
        "condition": network(x, t, Condition(condition.vector + second)),
        "time": network(x, t + torch.tensor([0, 50]), condition),
        "picture": network(x + 0.1 * second.view(2, 1, 1, 1), t, condition),
    }
    for what, after in changed.items():
        torch.testing.assert_close(after[0], before[0])
        assert float((after[1] - before[1]).detach().abs().max()) > 1e-3, what


def test_no_condition_where_one_was_promised_is_an_error() -> None:
    x, t, _ = inputs()
    with pytest.raises(ValueError, match="condition_dim > 0"):
        small()(x, t)
    assert small(condition_dim=0)(x, t).shape == x.shape


def test_memory_formats_agree() -> None:
    x, t, condition = inputs()
    contiguous = small()(x, t, condition)
    network = small().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other = network(x.contiguous(memory_format=torch.channels_last), t, condition)
    torch.testing.assert_close(other, contiguous, rtol=1e-9, atol=1e-9)


def test_dropout_is_off_in_eval_and_on_in_training() -> None:
    network = small(dropout=0.5)
    x, t, condition = inputs()
    assert torch.equal(network(x, t, condition), network(x, t, condition))
    network.train()
    assert not torch.equal(network(x, t, condition), network(x, t, condition))
    calm = small(dropout=0.0).train()
    assert torch.equal(calm(x, t, condition), calm(x, t, condition))


def test_the_door_is_space_to_depth_and_back() -> None:
    """A door of 2 is the same network on 4 times the channels at half the resolution."""
    with_door = small(patch_size=2, full_attention=(2,))
    inside = small(in_channels=12, sample_size=8, full_attention=(2,), linear_attention=(8,))
    inside.load_state_dict(with_door.state_dict())
    x, t, condition = inputs()
    expected = F.pixel_shuffle(inside(F.pixel_unshuffle(x, 2), t, condition), 2)
    torch.testing.assert_close(with_door(x, t, condition), expected)
    assert with_door.factor == 8 and inside.factor == 4


@pytest.mark.parametrize(
    ("changes", "linear", "full"),
    [
        ({}, 2, 4),  # linear at 8: down and up; full at 4: down, up and twice in the middle
        ({"blocks": 2}, 4, 6),
        ({"linear_attention": (16, 8), "full_attention": ()}, 4, 0),
        ({"linear_attention": (), "full_attention": (16, 8, 4)}, 0, 8),
        ({"patch_size": 2, "linear_attention": (8,), "full_attention": (2, 4)}, 2, 6),
        ({"sample_size": 32}, 4, 0),  # linear at 8, now the bottom; nothing has 4
        ({"linear_attention": (32, 8)}, 2, 4),  # nothing has 32
    ],
)
def test_attention_stands_where_it_is_listed(changes: dict[str, Any], linear: int, full: int) -> None:
    modules = list(UNet(**{**SMALL, **changes}).modules())
    assert sum(isinstance(m, LinearAttention) for m in modules) == linear
    assert sum(isinstance(m, FullAttention) for m in modules) == full


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sample_size": 18}, "model.sample_size=18: the network takes multiples of 4"),
        ({"sample_size": 0}, "model.sample_size=0"),
        ({"patch_size": 3}, "multiples of 12"),
        ({"full_attention": (5,)}, r"model.full_attention=\[5\]: no level has 5, they have \[16, 8, 4\]"),
        ({"linear_attention": (61,)}, r"model.linear_attention=\[61\]: no level has 61"),
        ({"linear_attention": (0,)}, r"model.linear_attention=\[0\]: no level has 0"),
        ({"sample_size": 24}, r"no level has 8, they have \[24, 12, 6\]: use those"),
        ({"upsample_kernel": 2}, "model.upsample_kernel=2: use 1 or 3"),
        ({"channels": 9}, "model.channels=9: use an even number"),
        ({"channels": 10, "head_dim": 3}, "model.head_dim=3: 20 channels"),
    ],
)
def test_sizes_and_resolutions_that_cannot_be_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LabError, match=words) as error:
        UNet(**{**SMALL, **changes})
    assert "\n" not in str(error.value)


def test_other_sizes_are_checked_on_demand() -> None:
    network = UNet(**SMALL)
    network.check_size(32, 8)
    for height, width in ((18, 16), (16, 6), (0, 16), (-4, 16)):
        with pytest.raises(LabError, match=f"size {height}x{width}: the network takes multiples of 4"):
            network.check_size(height, width)


# -- tokens ------------------------------------------------------------------------------------------


def test_tokens_reach_the_output_and_are_demanded() -> None:
    torch.manual_seed(0)
    sizes = {"sample_size": 8, "channels": 16, "multipliers": (1, 2), "blocks": 1, "linear_attention": (8,)}
    network = UNet(**sizes, full_attention=(4,), condition_dim=3, token_dim=5)  # type: ignore[arg-type]
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    network.eval()
    x, t, vector = torch.randn(2, 3, 8, 8), torch.tensor([3, 500]), torch.randn(2, 3)
    tokens = torch.randn(2, 7, 5)
    out = network(x, t, Condition(vector, tokens))
    assert out.shape == x.shape
    assert float((network(x, t, Condition(vector, tokens + 1)) - out).detach().abs().max()) > 1e-3
    shuffled = network(x, t, Condition(vector, tokens.flip(1)))
    torch.testing.assert_close(shuffled, out, rtol=1e-3, atol=1e-4)  # a set: order is what the tokens say themselves
    with pytest.raises(ValueError, match="token_dim > 0"):
        network(x, t, Condition(vector))


def test_without_tokens_the_network_is_the_same_as_ever() -> None:
    names = {name for name, _ in UNet(sample_size=16, full_attention=(8,), linear_attention=(16,)).named_modules()}
    assert not any("cross" in name or "feed" in name for name in names)


def test_tokens_without_attention_are_refused() -> None:
    with pytest.raises(LabError, match="tokens are looked at where attention is"):
        UNet(sample_size=16, linear_attention=(), full_attention=(), token_dim=5)
