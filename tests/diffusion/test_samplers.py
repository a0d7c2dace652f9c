"""What every sampler does, and how fast each approaches the truth where that is known."""

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from dummy import MEANS, STDS, WEIGHTS, denoiser, flow, ideal, last, no_noise, start, step_noise
from torch import Tensor

from lab.config import build, compose
from lab.diffusion import SAMPLERS, WITH_ETA, NoiseSchedule, Parameterization, Prediction, evaluation_times
from lab.diffusion.parameterization import PREDICTION_TYPES
from lab.errors import LabError


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("spacing", ["trailing", "karras"])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_samplers_start_from_pure_noise(name: str, spacing: str, steps: int) -> None:
    """At zero terminal SNR the first step divides by no alpha, and ends among the data."""
    schedule = NoiseSchedule("cosine", 1000, zero_terminal_snr=True)
    timesteps = evaluation_times(name, schedule, steps, spacing)
    sample = last(SAMPLERS[name](ideal(schedule), start(), schedule, timesteps, step_noise))
    assert float(sample.abs().max()) < 3


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("spacing", ["trailing", "karras"])
def test_exactly_as_many_evaluations_as_steps_and_every_state_is_yielded(name: str, steps: int, spacing: str) -> None:
    schedule = NoiseSchedule("cosine", 100)
    inner, calls = denoiser(schedule, "v"), []

    def counted(x: Tensor, t: Tensor) -> Prediction:
        assert t.shape == (len(x),) and t.dtype == torch.int64 and len(set(t.tolist())) == 1
        calls.append((int(t[0]), x))
        return inner(x, t)

    timesteps = evaluation_times(name, schedule, steps, spacing)
    states = list(SAMPLERS[name](counted, start(), schedule, timesteps, step_noise))
    assert [t for t, _ in calls] == timesteps.tolist() == [state.t for state in states]
    assert [state.step for state in states] == list(range(steps))
    assert torch.equal(states[0].x_t, start())
    for before, after in pairwise(states):
        assert before.x_next is after.x_t
    for state, (_, x) in zip(states, calls, strict=True):
        assert state.x_t is x
        rebuilt = schedule.add_noise(state.x0, state.eps, torch.full((2,), state.t))
        torch.testing.assert_close(rebuilt, state.x_t, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_levels_descend_and_are_evaluated_as_often_as_the_method_asks(name: str, noise: bool) -> None:
    """From nearly pure noise no step is corrected, and none is evaluated for it."""
    schedule = NoiseSchedule("linear", 100, zero_terminal_snr=noise)
    for steps in range(1, 101):
        times = evaluation_times(name, schedule, steps).tolist()
        assert len(times) == steps and times[0] == 99 and times == sorted(times, reverse=True)
        often = list(Counter(times).values())  # in order of first appearance
        if name == "heun":
            assert often[:1] == [1] and set(often[1 + noise : -1]) <= {2} and (not noise or often[:2] in ([1], [1, 1]))
        elif name == "plms" and not noise:
            assert often == [1, 2][: len(often)] + [1] * (len(often) - 2) or steps == 2
        else:
            assert set(often) == {1}


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_evaluation_is_of_use(name: str, schedule: str) -> None:
    """One more, another sample."""
    levels = NoiseSchedule(schedule, 1000)
    samples = []
    for steps in range(2, 8):
        timesteps = evaluation_times(name, levels, steps)
        samples.append(last(SAMPLERS[name](denoiser(levels, "v"), start(), levels, timesteps, step_noise)))
    assert all(float((one - other).abs().max()) > 1e-6 for one, other in pairwise(samples))


@pytest.mark.parametrize("steps", [0, -3, 101])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    for name in SAMPLERS:
        with pytest.raises(LabError, match=f"steps={steps}: use 1 to 100"):
            evaluation_times(name, NoiseSchedule("cosine", 100), steps)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_the_last_step_adds_no_noise(name: str) -> None:
    """It ends at the predicted picture itself, and asks for no noise to get there."""
    schedule, asked = NoiseSchedule("cosine", 100), []

    def recorded(step: int) -> Tensor:
        asked.append(step)
        return step_noise(step)

    options = {"eta": 1.0} if name in WITH_ETA else {}
    timesteps = evaluation_times(name, schedule, 6)
    states = list(SAMPLERS[name](denoiser(schedule, "v"), start(), schedule, timesteps, recorded, **options))
    assert asked == ([0, 1, 2, 3, 4] if name in WITH_ETA else [])
    if name not in ("plms", "lms"):  # these go on with an eps of several steps
        torch.testing.assert_close(states[-1].x_next, states[-1].x0)


# -- a mixture of Gaussians: the ideal denoiser and the way of every quantile are known ---------------


def test_the_flow_keeps_quantiles_and_ends_in_the_data() -> None:
    schedule = NoiseSchedule("cosine", 6400)
    ends = flow(schedule, torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64))
    assert (ends[1:] > ends[:-1]).all()
    assert float((ends - torch.tensor([-0.890, 0.507, 1.055], dtype=torch.float64)).abs().max()) < 5e-3  # by hand


def error(name: str, evaluations: int) -> float:
    """Mean distance from the exact end of the probability-flow ODE, from noise in [-2, 2]."""
    schedule = NoiseSchedule("cosine", 6400)
    x = torch.linspace(-2, 2, 41, dtype=torch.float64).view(-1, 1, 1, 1)
    timesteps = evaluation_times(name, schedule, evaluations, "karras")
    sample = last(SAMPLERS[name](ideal(schedule), x, schedule, timesteps, no_noise))
    return float((sample - flow(schedule, x)).abs().mean())


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("plms", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    """Doubling the evaluations divides the error by 2^order."""
    coarse, fine = error(name, 25), error(name, 100)
    assert math.log2(coarse / fine) / 2 == pytest.approx(order, abs=0.3), (coarse, fine)
    assert fine < (0.02 if order == 1 else 3e-3)


@pytest.mark.parametrize("name", ["lms", "unipc"])
def test_higher_orders_converge_faster(name: str) -> None:
    """Of order up to 4 and 3: faster than the second order, until time steps can't be divided further."""
    errors = [error(name, evaluations) for evaluations in (25, 50, 100)]
    assert all(math.log2(a / b) > 2.5 for a, b in pairwise(errors)), errors


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samples_are_distributed_as_the_data(name: str) -> None:
    schedule, shape = NoiseSchedule("cosine", 1000), (8000, 1, 1, 1)

    def fresh(step: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)

    x = torch.randn(shape, generator=torch.Generator().manual_seed(12345), dtype=torch.float64)
    timesteps = evaluation_times(name, schedule, 200)
    sample = last(SAMPLERS[name](ideal(schedule), x, schedule, timesteps, fresh)).flatten()
    assert float((sample < 0).double().mean()) == pytest.approx(float(WEIGHTS[0]), abs=0.02)  # standard error 0.0055
    for side, mean, std in zip((sample < 0, sample > 0), MEANS, STDS, strict=True):  # 2 % of the left lie right of 0
        assert float(sample[side].mean()) == pytest.approx(float(mean), abs=0.03)
        assert float(sample[side].std()) == pytest.approx(float(std), rel=0.1)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_small_errors_of_a_network_stay_small_as_it_is_configured(prediction_type: str) -> None:
    """Nothing is clipped here, as in latents and in inversion: eps on the cosine schedule would be off by 3."""
    formulas: Parameterization = build(compose("train", [f"diffusion={prediction_type}"]).diffusion)
    exact, schedule = ideal(formulas.schedule), formulas.schedule

    def off(x: Tensor, t: Tensor) -> Prediction:
        right = exact(x, t)
        output = {"x0": right.x0, "eps": right.eps, "v": formulas.target(right.x0, right.eps, t)}[prediction_type]
        return formulas.predict(output + 0.02 * torch.sin(40 * x + t[0]), x, t)

    timesteps = evaluation_times("ddim", schedule, 40, "trailing")
    samples = [last(SAMPLERS["ddim"](one, start(), schedule, timesteps, no_noise)) for one in (off, exact)]
    assert float((samples[0] - samples[1]).square().mean().sqrt()) < 0.2  # pixels spread by 0.68
