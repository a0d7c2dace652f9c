"""Inversion is DDIM read backwards: against DDIM itself, and against the exact flow of data with a closed form."""

from itertools import pairwise

import pytest
import torch
from dummy import denoiser, flow, ideal, last, no_noise, relative_error, start
from torch import Tensor

from lab.diffusion import Denoiser, NoiseSchedule
from lab.diffusion.inversion import ddim_inversion
from lab.diffusion.onestep import ddim


def there_and_back(denoise: Denoiser, schedule: NoiseSchedule, x0: Tensor, steps: int, iterations: int) -> Tensor:
    timesteps = schedule.spaced(steps)
    *_, top = ddim_inversion(denoise, x0, schedule, timesteps, iterations)
    return last(ddim(denoise, top.x_t, schedule, timesteps, no_noise))


def pictures() -> Tensor:
    return torch.linspace(-1, 1, 41, dtype=torch.float64).view(-1, 1, 1, 1)


def test_the_error_falls_with_the_steps_and_with_iterations_much_faster() -> None:
    """One evaluation a level is of first order; three bring at least ten times less error here (50 steps and more)."""
    schedule = NoiseSchedule("linear", 1000)
    once, thrice = (
        [
            relative_error(there_and_back(ideal(schedule), schedule, pictures(), steps, iterations), pictures())
            for steps in (50, 100, 200)
        ]
        for iterations in (1, 3)
    )
    assert [a / b for a, b in pairwise(once)] == pytest.approx([2.0, 2.0], rel=0.1)
    assert all(one > 9 * three for one, three in zip(once, thrice, strict=True)), (once, thrice)


def test_a_cosine_schedule_starts_at_pure_noise_and_comes_back_too() -> None:
    """At its last level x_t is all but eps; iterations settle there in x0."""
    schedule = NoiseSchedule("cosine", 1000)
    errors = [
        relative_error(there_and_back(ideal(schedule), schedule, pictures(), 100, iterations), pictures())
        for iterations in (1, 3, 30)
    ]
    assert errors[1] < errors[0] / 10 and errors[2] < 1e-4, errors


@pytest.mark.parametrize("steps", [10, 50, 100])
def test_more_iterations_come_back_closer(steps: int) -> None:
    schedule = NoiseSchedule("linear", 1000)
    errors = [
        relative_error(there_and_back(ideal(schedule), schedule, pictures(), steps, iterations), pictures())
        for iterations in (1, 3, 30)
    ]
    assert errors[2] < errors[1] < errors[0]
    assert errors[1] < {10: 0.2, 50: 0.01, 100: 0.002}[steps], errors


def test_the_fixed_point_is_undone_exactly() -> None:
    """One step of DDIM from the x_t that was found ends where the step began."""
    schedule = NoiseSchedule("linear", 1000)
    x = pictures()
    below = None
    for state in ddim_inversion(ideal(schedule), x, schedule, schedule.spaced(100), 200):
        down = torch.tensor([state.t] if below is None else [state.t, below.t])
        first = next(ddim(ideal(schedule), state.x_t, schedule, down, no_noise))
        torch.testing.assert_close(first.x_next, x if below is None else below.x_t, rtol=0, atol=1e-6)
        below = state


def test_it_ends_in_the_noise_that_the_exact_flow_comes_from() -> None:
    schedule = NoiseSchedule("cosine", 1000)
    noise = torch.linspace(-2, 2, 41, dtype=torch.float64).view(-1, 1, 1, 1)
    *_, top = ddim_inversion(ideal(schedule), flow(schedule, noise), schedule, schedule.spaced(1000), 5)
    assert float((top.x_t - noise).abs().mean()) < 0.02


def test_every_level_is_yielded_once_from_below() -> None:
    schedule, calls = NoiseSchedule("linear", 200), []
    inner = denoiser(schedule, "eps")

    def counted(x: Tensor, t: Tensor):  # type: ignore[no-untyped-def]
        calls.append(int(t[0]))
        return inner(x, t)

    timesteps = schedule.spaced(7)
    states = list(ddim_inversion(counted, start(), schedule, timesteps, 3))
    assert [state.t for state in states] == timesteps.flip(0).tolist()
    assert calls == [t for state in states for t in [state.t] * 3]
    assert all(state.x_t.shape == start().shape for state in states)
