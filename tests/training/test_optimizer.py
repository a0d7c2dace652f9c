"""AdamW: gradients within a norm whichever kernel takes them, and a state that comes back."""

import pytest
import torch
from torch import nn

from lab.training.optimizer import clip, load_state, make_adamw, state_tensors
from lab.training.settings import TrainingSettings

CPU = torch.device("cpu")


def a_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)).to(memory_format=torch.channels_last)
    network(torch.randn(2, 3, 5, 5)).square().sum().backward()
    return network


@pytest.mark.parametrize("share", [0.1, 2.0])
def test_both_kernels_take_gradients_within_the_norm(share: float) -> None:
    """The fused one, which divides in passing, and torch's own clipping before the plain one."""
    first, second = a_network(), a_network()
    norm = torch.cat([p.grad.flatten() for p in first.parameters() if p.grad is not None]).norm()
    limit, settings = share * float(norm), TrainingSettings(lr=0.1)
    fused = make_adamw(first.parameters(), settings, CPU)
    plain = torch.optim.AdamW(second.parameters(), lr=0.1, betas=settings.betas, weight_decay=settings.weight_decay)
    assert fused.defaults["fused"] and not plain.defaults["fused"]
    for optimizer, network in ((fused, first), (plain, second)):
        torch.testing.assert_close(clip(optimizer, network.parameters(), limit), norm)
        optimizer.step()
    for name, expected in state_tensors(plain, dict(second.named_parameters())).items():
        torch.testing.assert_close(state_tensors(fused, dict(first.named_parameters()))[name], expected)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_moments_are_those_of_the_scaled_gradient() -> None:
    network = a_network()
    grads = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    adamw = make_adamw(network.parameters(), TrainingSettings(betas=(0.5, 0.5)), CPU)
    norm = clip(adamw, network.parameters(), 0.25)
    adamw.step()
    moments = state_tensors(adamw, grads)
    for name, grad in grads.items():
        torch.testing.assert_close(moments[f"{name}/exp_avg"], 0.5 * grad * 0.25 / norm)


def test_a_limit_that_is_lifted_scales_nothing() -> None:
    network, grads = a_network(), {name: p.grad.clone() for name, p in a_network().named_parameters()}  # type: ignore[union-attr]
    adamw = make_adamw(network.parameters(), TrainingSettings(betas=(0.0, 0.0)), CPU)
    for limit in (0.25, 0.0):
        clip(adamw, network.parameters(), limit)
    adamw.step()
    moments = state_tensors(adamw, grads)
    for name, grad in grads.items():
        torch.testing.assert_close(moments[f"{name}/exp_avg"], grad)


def test_a_state_comes_back_in_the_parameters_layout() -> None:
    network = a_network()
    adamw = make_adamw(network.parameters(), TrainingSettings(), CPU)
    adamw.step()
    names = dict(network.named_parameters())
    kept = {
        key: value.clone(memory_format=torch.contiguous_format) for key, value in state_tensors(adamw, names).items()
    }
    again = make_adamw(network.parameters(), TrainingSettings(), CPU)
    load_state(again, names, kept)
    for key, value in state_tensors(again, names).items():
        assert torch.equal(value, kept[key])
        if key.endswith("exp_avg"):
            assert value.stride() == names[key.rpartition("/")[0]].stride()
    with pytest.raises(KeyError):
        load_state(again, names, {"nowhere/step": torch.tensor(1.0)})
