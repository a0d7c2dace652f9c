"""Ways to attend, and what one costs there (forward) and back: time, and memory that is kept between the two."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from experiments.timing import Step, seconds
from lab.device import local_device
from lab.networks.attention import FullAttention, LinearAttention

A_ROUND = 0.02  # seconds at least, by repetition: a clock says little about less
MIB = 2**20


class KeptWeights(FullAttention):
    """Full attention by its formula at every size: the weights of all places to all are kept for the way back."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = ((q * q.shape[2] ** -0.5).transpose(2, 3) @ k).softmax(dim=3)
        return v @ weights.transpose(2, 3)


class Fused(FullAttention):
    """Full attention by torch's fused kernel at every size: on the way back the weights are computed anew."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (a.transpose(2, 3) for a in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(2, 3)


KEPT, FUSED, LINEAR, OURS = "full, weights kept", "full, fused kernel", "linear", "full, as the lab runs it"
CONTENDERS: dict[str, type[nn.Module]] = {
    KEPT: KeptWeights,
    FUSED: Fused,
    LINEAR: LinearAttention,
    OURS: FullAttention,  # one of the first two, as it finds better
}


@dataclass(frozen=True)
class Row:
    """One attention at one size, there (forward) and back."""

    attention: str
    resolution: int  # side of the map
    places: int  # N, its square
    milliseconds: float  # of the fastest round
    saved_mib: float  # what autograd keeps for the way back, the module's own weights aside
    peak_mib: float | None  # held at most, beyond what was held before; on CUDA alone


@dataclass(frozen=True)
class Sizes:
    """What stays as it is while the resolution grows."""

    batch_size: int
    channels: int
    head_dim: int


def given(module: nn.Module, sizes: Sizes, resolution: int) -> tuple[nn.Module, Tensor]:
    """The module and an input (B, C, H, W), where and in the layout in which the lab computes."""
    x = torch.randn(sizes.batch_size, sizes.channels, resolution, resolution, device=local_device())
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    return module.to(local_device(), memory_format=torch.channels_last), x  # type: ignore[call-overload]


def saved_bytes(module: nn.Module, x: Tensor) -> int:
    """What the graph of module(x) keeps for the way back, bytes: each piece of memory once, parameters not."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor  # held by the graph, so that no other piece takes its address meanwhile

    with saved_tensors_hooks(note, lambda tensor: tensor):
        out = module(x)
    del out
    return sum(size for place, size in kept.items() if place not in own)


def there_and_back(module: nn.Module, x: Tensor) -> Step:
    """Forward, and gradients of the input and of every parameter, ready to be repeated."""
    wanted, gradient = [x, *module.parameters()], torch.randn_like(x)

    def step() -> None:
        torch.autograd.grad(module(x), wanted, gradient)
        if x.is_cuda:
            torch.cuda.synchronize()

    return step


def in_turn(steps: Sequence[Step], rounds: int) -> list[float]:
    """Seconds of each step in its fastest round; they take turns, so that a slow moment meets all alike."""
    for step in steps:
        step()
    repeats = [math.ceil(A_ROUND / seconds(step)) for step in steps]
    best = [math.inf] * len(steps)
    for _ in range(rounds):
        for place, (step, count) in enumerate(zip(steps, repeats, strict=True)):
            best[place] = min(best[place], seconds(repeated(step, count)) / count)
    return best


def repeated(step: Step, count: int) -> Step:
    """The step so many times."""

    def steps() -> None:
        for _ in range(count):
            step()

    return steps


def peak_mib(step: Step) -> float | None:
    """MiB that a call holds at most beyond what is held already; None where there is no CUDA to tell."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def measure(names: Sequence[str], resolution: int, sizes: Sizes, rounds: int) -> list[Row]:
    """A row for each of some contenders at one resolution."""
    pairs = [given(CONTENDERS[name](sizes.channels, sizes.head_dim), sizes, resolution) for name in names]
    steps = [there_and_back(*pair) for pair in pairs]
    return [
        Row(name, resolution, resolution**2, 1000 * best, saved_bytes(*pair) / MIB, peak_mib(step))
        for name, best, pair, step in zip(names, in_turn(steps, rounds), pairs, steps, strict=True)
    ]
