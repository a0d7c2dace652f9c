"""A change of condition on the way, each sample at a step of its own, and mixtures of conditions."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from lab.conditioning import Condition
from lab.diffusion import SAMPLERS, slerp
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.seeding import noise


def tensor(model: DiffusionModel, **settings: Any) -> Tensor:
    samples = model.sample(output="tensor", **settings)
    assert isinstance(samples, Tensor)
    return samples


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_the_first_and_the_last_switch_are_the_two_conditions_alone(model: DiffusionModel, sampler: str) -> None:
    steps = 6
    asked: dict[str, Any] = {"sampler": sampler, "num_inference_steps": steps, "numbers": [2]}
    daisy = model.condition(classes=["daisy"])
    swept = tensor(model, classes=["rose"], count=steps + 1, then=daisy, switch_step=range(steps + 1), **asked)
    close(swept[:1], tensor(model, classes=["daisy"], **asked))
    close(swept[steps:], tensor(model, classes=["rose"], **asked))
    moves = [float((a - b).abs().max()) > 1e-4 for a, b in zip(swept[1:], swept[:-1], strict=True)]
    times = model.times(steps, sampler).tolist()
    assert moves == [a != b for a, b in pairwise([*times, -1])]  # a level that is evaluated twice switches as a whole


def test_a_sweep_of_switches_equals_single_runs(model: DiffusionModel) -> None:
    daisy = model.condition(classes=["daisy"])
    asked: dict[str, Any] = {"classes": ["rose"], "numbers": [2], "then": daisy}
    together = tensor(model, count=4, switch_step=[1, 5, 3, 6], batch_size=3, **asked)
    for i, step in enumerate([1, 5, 3, 6]):
        close(together[i : i + 1], tensor(model, switch_step=step, **asked))


def test_until_the_switch_the_way_is_shared(model: DiffusionModel) -> None:
    """So that, with a sampler that remembers nothing, one trajectory of the first condition serves all switches."""
    rose, daisy = model.condition(classes=["rose"]), model.condition(classes=["daisy"])
    plain = list(model.states(rose))
    switched = list(model.states(rose, then=daisy, switch_step=4))
    for k in range(4):
        close(switched[k].x_next, plain[k].x_next)
    assert float((switched[4].x_next - plain[4].x_next).abs().max()) > 1e-4
    later = list(model.states(daisy, latents=plain[3].x_next, start_step=4))
    assert [state.step for state in later] == [4, 5]
    close(later[-1].x_next, switched[-1].x_next)


def test_a_way_taken_up_again_draws_the_noise_it_would_have_drawn(model: DiffusionModel) -> None:
    rose = model.condition(classes=["rose"])
    whole = list(model.states(rose, sampler="ddpm", seed=4))
    rest = list(model.states(rose, sampler="ddpm", seed=4, latents=whole[2].x_next, start_step=3))
    close(rest[-1].x_next, whole[-1].x_next)


def test_conditions_and_noises_can_be_mixed(model: DiffusionModel) -> None:
    ends = model.condition(classes=["rose", "daisy"])
    weights = torch.linspace(0, 1, 5)
    mixed = Condition(slerp(ends.vector[:1], ends.vector[1:], weights))
    strip = tensor(model, condition=mixed, numbers=[3])
    close(strip[:1], tensor(model, classes=["rose"], numbers=[3]))
    close(strip[-1:], tensor(model, classes=["daisy"], numbers=[3]))
    noises = noise((3, 8, 8), 0, [3, 4])
    between = tensor(model, classes=["rose"], count=5, latents=slerp(noises[:1], noises[1:], weights))
    close(between[:1], tensor(model, classes=["rose"], numbers=[3]))
    close(between[-1:], tensor(model, classes=["rose"], numbers=[4]))


def test_rows_that_fit_nothing_are_refused(model: DiffusionModel) -> None:
    two = model.condition(classes=["rose", "daisy"])
    with pytest.raises(LabError, match="then has 2 rows for 3 samples"):
        model.sample(classes=["rose"] * 3, then=two, switch_step=2)
    for alone in ({"then": two[:1]}, {"switch_step": 2}):
        with pytest.raises(LabError, match="then and switch_step belong together"):
            model.sample(classes=["rose"], **alone)
    for step, words in ((7, "7"), (-1, "-1")):
        with pytest.raises(LabError, match=rf"switch_step=\[{words}\]: use 0, from the start, to 6, never"):
            model.sample(classes=["rose"], then=two[:1], switch_step=step)
    for key, value in (("switch_step", [2.5]), ("numbers", [4.7])):
        with pytest.raises(LabError, match=rf"{key}=[24]\.[57]: use whole numbers"):
            model.sample(classes=["rose"], **({"then": two[:1], "switch_step": 1} | {key: value}))
    with pytest.raises(LabError, match="switch_step has 2 values for 3 samples"):
        model.sample(classes=["rose"] * 3, then=two[:1], switch_step=[1, 2])


def test_a_level_that_is_evaluated_twice_is_entered_once(model: DiffusionModel) -> None:
    rose = model.condition(classes=["rose"])
    half = list(model.states(rose, sampler="heun"))
    assert half[2].t == half[3].t
    later = list(model.states(rose, sampler="heun", latents=half[1].x_next, start_step=2))
    assert [state.step for state in later] == [2, 3, 4, 5]
    with pytest.raises(LabError, match="start_step=3: heun is at that level a second time; use 2"):
        model.states(rose, sampler="heun", latents=half[2].x_next, start_step=3)


def test_latents_must_be_those_of_this_model(model: DiffusionModel) -> None:
    rose, fit = model.condition(classes=["rose"]), noise((3, 8, 8), 0, [0])
    close(tensor(model, condition=rose, latents=fit.double()), tensor(model, condition=rose))
    for latents, words in (
        (torch.zeros(1, 4, 8, 8), r"latents \(1, 4, 8, 8\): use \(B, 3, height, width\)"),
        (torch.zeros(3, 8, 8), r"latents has|latents \(3, 8, 8\)"),
        (torch.zeros(1, 3, 9, 8), "size 9x8: the network"),
    ):
        with pytest.raises(LabError, match=words):
            model.sample(condition=rose, latents=latents)
    with pytest.raises(LabError, match="size 16x8: the latents given are 8x8; leave it out"):
        model.sample(condition=rose, latents=fit, height=16)
    with pytest.raises(LabError, match="numbers has 1 rows for 2 samples"):
        model.states(model.condition(classes=[0, 1]), numbers=[4])
