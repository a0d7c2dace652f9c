import math

import pytest
import torch
from torch import Tensor

from lab.diffusion import lerp, slerp


def ends() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 4, 3, 8, 8, generator=draw, dtype=torch.float64)
    return start, end


def norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


@pytest.mark.parametrize("way", [lerp, slerp])
def test_it_starts_and_ends_at_the_ends(way) -> None:  # type: ignore[no-untyped-def]
    start, end = ends()
    torch.testing.assert_close(way(start, end, 0.0), start)
    torch.testing.assert_close(way(start, end, 1.0), end)
    weights = torch.tensor([0.0, 0.25, 0.5, 1.0])
    together = way(start, end, weights)
    for i in range(4):
        torch.testing.assert_close(together[i], way(start[i : i + 1], end[i : i + 1], float(weights[i]))[0])


@pytest.mark.parametrize("way", [lerp, slerp])
def test_two_ends_make_a_strip(way) -> None:  # type: ignore[no-untyped-def]
    start, end = ends()
    weights = torch.linspace(0, 1, 9)
    strip = way(start[:1], end[:1], weights)
    assert strip.shape == (9, 3, 8, 8)
    torch.testing.assert_close(strip[4], way(start[0:1], end[0:1], 0.5)[0])


def test_an_arc_turns_evenly_and_keeps_its_length() -> None:
    one, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    quarter = slerp(one, other, torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]))
    angles = torch.atan2(quarter[:, 1], quarter[:, 0]).tolist()
    assert angles == pytest.approx([0, math.pi / 6, math.pi / 3, math.pi / 2], abs=1e-6)
    assert quarter.norm(dim=1).tolist() == pytest.approx([2] * 4)


def test_noise_stays_as_long_as_noise_is() -> None:
    """Half way a straight line between two noises is shorter by sqrt(2), and the network sees too little of it."""
    start, end = ends()
    assert (norm(slerp(start, end, 0.5)) / norm(start)).tolist() == pytest.approx([1] * 4, abs=0.1)
    assert (norm(lerp(start, end, 0.5)) / norm(start)).tolist() == pytest.approx([math.sqrt(0.5)] * 4, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_and_opposite_directions_go_straight(dtype: torch.dtype) -> None:
    start = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    torch.testing.assert_close(slerp(start, 3 * start, 0.25), 1.5 * start, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slerp(start, -start, 0.25), 0.5 * start, rtol=1e-4, atol=1e-4)
    assert bool(slerp(torch.zeros(1, 3), torch.ones(1, 3), 0.5).isfinite().all())
