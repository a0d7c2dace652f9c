"""The moving average of the weights: its values, and that looking through it changes nothing."""

import pytest
import torch
from torch import nn

from lab.training.ema import EMA


def walk(module: nn.Module, step: int) -> None:
    """What an optimiser step would do: every weight moves, the same way each time."""
    draw = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw))


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9995])
def test_the_average_follows_its_formula(module: nn.Module, decay: float) -> None:
    ema = EMA(module, decay)
    expected = {name: p.detach().double().clone() for name, p in module.named_parameters()}
    for step in range(40):
        walk(module, step)
        ema.update(step)
        share = min(decay, (1 + step) / (10 + step))
        for name, parameter in module.named_parameters():
            expected[name] = share * expected[name] + (1 - share) * parameter.detach().double()
    for name, average in ema.averages.items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-5)


def test_four_steps_at_once_weigh_as_much_as_four(module: nn.Module) -> None:
    """Early steps one by one, later ones in fours; for weights that rest meanwhile the average is the same."""
    each, at_once = EMA(module, 0.9), EMA(module, 0.9, every=4)
    taken_in = []
    for step in range(32):
        if step % 4 == 0:
            walk(module, step)
        each.update(step)
        before = at_once.averages["0.weight"].clone()
        at_once.update(step)
        if not torch.equal(before, at_once.averages["0.weight"]):
            taken_in.append(step)
    assert taken_in == [*range(20), 23, 27, 31]
    for name, average in each.averages.items():
        torch.testing.assert_close(at_once.averages[name], average)


def test_the_warm_up_forgets_the_start_and_ends_at_the_decay() -> None:
    """Weights that are 1 at the start and 0 from then on: the average is what is left of the start."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    ema = EMA(module, 0.9)
    nn.init.zeros_(module.weight)
    left, shares = 1.0, []
    for step in range(200):
        ema.update(step)
        now = float(ema.averages["weight"])
        shares.append(now / left)
        left = now
    assert shares[:3] == pytest.approx([1 / 10, 2 / 11, 3 / 12])
    assert shares[79:82] == pytest.approx([80 / 89, 0.9, 0.9])  # (1 + step) / (10 + step) passes 0.9 at step 80
    assert max(shares) == pytest.approx(0.9)


def test_the_averages_are_in_place_inside_and_the_own_weights_back_afterwards(module: nn.Module) -> None:
    ema = EMA(module, 0.9)
    for step in range(3):
        walk(module, step)
        ema.update(step)
    own = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    held = dict(module.named_parameters())
    with ema.in_place():
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter, ema.averages[name])
            assert not torch.equal(parameter, own[name])
            assert parameter is held[name]  # an optimiser and DDP keep pointing at them
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, own[name])


def test_the_own_weights_come_back_after_an_error(module: nn.Module) -> None:
    ema = EMA(module, 0.9)
    walk(module, 0)
    own = [parameter.clone() for parameter in module.parameters()]
    with pytest.raises(RuntimeError, match="no picture"), ema.in_place():
        raise RuntimeError("no picture")
    assert all(torch.equal(one, other) for one, other in zip(module.parameters(), own, strict=True))


def test_averages_that_were_saved_go_on_bit_for_bit(module: nn.Module) -> None:
    ema = EMA(module, 0.9)
    walk(module, 0)
    ema.update(0)
    saved = {name: average.clone(memory_format=torch.contiguous_format) for name, average in ema.averages.items()}
    again = EMA(module, 0.9)
    again.load(saved)
    for one in (ema, again):
        walk_to = module.state_dict()
        one.update(1)
        module.load_state_dict(walk_to)
    for name, average in ema.averages.items():
        assert torch.equal(average, again.averages[name])
        assert average.data_ptr() != dict(module.named_parameters())[name].data_ptr()


def test_buffers_are_left_alone(module: nn.Module) -> None:
    ema = EMA(module, 0.9)
    assert set(ema.averages) == {name for name, _ in module.named_parameters()}
