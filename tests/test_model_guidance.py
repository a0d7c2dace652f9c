"""Guidance and the states on the way, in pixels and in latents."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lab.autoencoders import Identity
from lab.conditioning import Condition, Unconditional
from lab.denoising import GuidedDenoiser
from lab.diffusion import SAMPLERS, THRESHOLDINGS, Guidance
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.seeding import noise

Build = Callable[..., DiffusionModel]


def tensor(model: DiffusionModel, *args: Any, **settings: Any) -> Tensor:
    samples = model.sample(*args, output="tensor", **settings)
    assert isinstance(samples, Tensor)
    return samples


def close(one: Tensor, other: Tensor, most: float = 1e-5) -> None:
    """Root mean square difference of pixels in [-1, 1]; a single one may be ten times as far off."""
    assert float((one - other).square().mean().sqrt()) < most
    torch.testing.assert_close(one, other, rtol=0, atol=10 * most)


def differ(one: Tensor, other: Tensor) -> None:
    assert float((one - other).abs().max()) > 1e-2


# -- guidance ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prediction_type", "most"), [("eps", 1e-4), ("x0", 1e-5), ("v", 1e-5)])
def test_a_tensor_of_scales_equals_single_runs(tiny_model: Build, prediction_type: str, most: float) -> None:
    """A sweep is one batch: every scale on the same class and the same noise.

    In float32 an eps model divides rounding by the smallest alpha; the next test shows that it is no more than that.
    """
    model = tiny_model(prediction_type)
    scales = torch.linspace(-10, 10, 21)
    together = tensor(model, classes=["rose"], count=21, numbers=[5], guidance_scale=scales)
    for i, scale in enumerate(scales.tolist()):
        close(together[i : i + 1], tensor(model, classes=["rose"], numbers=[5], guidance_scale=scale), most)


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_in_float64_scales_together_and_alone_are_one(tiny_model: Build, prediction_type: str) -> None:
    model, scales = tiny_model(prediction_type).double(), torch.linspace(-10, 10, 21)
    condition, null = model.condition(classes=["rose"]), model.conditioner.null(1)
    x = noise((3, 8, 8), 0, [5]).double()

    def sampled(scale: Tensor) -> Tensor:
        rows = torch.zeros(len(scale), dtype=torch.int64)
        denoise = GuidedDenoiser(
            model.network, model.parameterization, condition[rows], null[rows], Guidance(scale), "static"
        )
        states = SAMPLERS["ddim"](denoise, x[rows], model.parameterization.schedule, model.times(), lambda step: x)
        return list(states)[-1].x_next

    with torch.no_grad():
        together = sampled(scales)
        for i in range(21):
            torch.testing.assert_close(together[i : i + 1], sampled(scales[i : i + 1]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
@pytest.mark.parametrize("knob", ["rescale_phi", "guidance_parallel"])
def test_every_knob_of_guidance_is_each_samples_own(tiny_model: Build, prediction_type: str, knob: str) -> None:
    """Within float32's rounding, which a gain of -10 to 10 multiplies at each step."""
    model = tiny_model(prediction_type)
    values = [-10.0, 0.0, 0.5, 1.0, 10.0]
    asked: dict[str, Any] = {"numbers": [5], "guidance_scale": 4.0}
    together = tensor(model, classes=["rose"] * 5, **asked, **{knob: torch.tensor(values)})
    for i, value in enumerate(values):
        close(together[i : i + 1], tensor(model, classes=["rose"], **asked, **{knob: value}))
    differ(together[0], together[2])


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_projection_is_of_predicted_x0_whatever_the_network_predicts(tiny_model: Build, prediction_type: str) -> None:
    model = tiny_model(prediction_type, autoencoder=Halved())  # latents, which no clipping touches
    guidance, inputs = Guidance(3.0, parallel=0.2), torch.tensor([0, 1])
    for state in model.states(model.condition(classes=inputs.tolist()), guidance=guidance):
        t = torch.full((2,), state.t)
        assert state.guidance is not None
        c, u = (
            model.parameterization.predict(branch, state.x_t, t).x0
            for branch in (state.guidance.conditional, state.guidance.unconditional)
        )
        torch.testing.assert_close(state.x0, guidance.mix(c, u), rtol=1e-3, atol=1e-3)


def test_states_tell_what_guidance_did(model: DiffusionModel) -> None:
    knobs = Guidance(6.0, torch.tensor([0.0, 0.7]), interval=(0.3, 1.0))
    for state in model.states(model.condition(classes=[0, 0]), numbers=[4, 4], guidance=knobs):
        assert state.clip_fraction is not None and state.clip_fraction.shape == (2,)
        if state.t / 99 < 0.3:
            assert state.guidance is None  # one branch was evaluated
            continue
        assert state.guidance is not None
        terms = state.guidance
        plain = Guidance(6.0).mix(terms.conditional, terms.unconditional)
        torch.testing.assert_close(terms.ratio, terms.conditional.std((1, 2, 3)) / plain.std((1, 2, 3)))
        torch.testing.assert_close(terms.gain, 1 + torch.tensor([0.0, 0.7]) * (terms.ratio - 1))
        predicted = model.parameterization.predict(
            plain * terms.gain.view(-1, 1, 1, 1), state.x_t, torch.full((2,), state.t)
        ).x0
        assert state.clip_fraction.tolist() == pytest.approx((predicted.abs() > 1).float().mean((1, 2, 3)).tolist())
        torch.testing.assert_close(state.x0, predicted.clamp(-1, 1))


def test_pixels_are_held_in_range_as_asked(model: DiffusionModel) -> None:
    asked: dict[str, Any] = {"guidance": Guidance(50.0), "numbers": [0]}
    static, dynamic, free = (
        [state.x0 for state in model.states(model.condition(classes=[0]), thresholding=name, **asked)]
        for name in ("static", "dynamic", "none")
    )
    assert float(torch.stack(static).abs().max()) == float(torch.stack(dynamic).abs().max()) == 1
    assert float(torch.stack(free).abs().max()) > 1
    torch.testing.assert_close(static[0], free[0].clamp(-1, 1))
    torch.testing.assert_close(dynamic[0], THRESHOLDINGS["dynamic"](free[0]))
    differ(static[-1], dynamic[-1])


def calls(model: DiffusionModel) -> list[int]:
    """Grows by the number of rows of each network call from now on."""
    rows: list[int] = []
    model.network.register_forward_pre_hook(lambda network, args: rows.append(len(args[0])))
    return rows


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_cheap_scales_equal_the_full_formula(tiny_model: Build, scale: float) -> None:
    """One branch instead of two; a second sample with another scale forces both."""
    model = tiny_model()
    rows = calls(model)
    short = tensor(model, classes=[0, 1], guidance_scale=scale)
    assert rows == [2] * 6
    full = tensor(model, classes=[0, 1], guidance_scale=torch.tensor([scale, 3.0]))
    assert rows[6:] == [4] * 6
    close(short[:1], full[:1])


def test_scale_0_is_the_null_condition_and_scale_1_the_class(model: DiffusionModel) -> None:
    close(tensor(model, classes=["rose"], guidance_scale=0), tensor(model, classes=["tulip"], guidance_scale=0))
    differ(tensor(model, classes=["rose"], guidance_scale=1), tensor(model, classes=["tulip"], guidance_scale=1))


def test_guidance_rescaling_reaches_the_states(model: DiffusionModel) -> None:
    inputs = torch.tensor([0, 0])
    knobs = Guidance(6.0, torch.tensor([0.0, 0.7]))
    both = list(model.states(model.condition(classes=inputs.tolist()), numbers=[4, 4], guidance=knobs))[-1].x_next
    for row, phi in ((0, 0.0), (1, 0.7)):
        alone = list(model.states(model.condition(classes=[0]), numbers=[4], guidance=Guidance(6.0, phi)))[-1].x_next
        close(both[row : row + 1], alone)
    differ(both[0], both[1])


def test_both_branches_share_one_call_with_the_null_last(model: DiffusionModel) -> None:
    seen: list[Condition] = []
    hook = model.network.register_forward_pre_hook(lambda network, args: seen.append(args[2]))
    next(iter(model.states(model.condition(classes=[2, 0]))))
    hook.remove()
    table = model.conditioner.embedding.weight  # type: ignore[union-attr]
    assert torch.equal(seen[0].vector, table[[2, 0, 3, 3]])  # type: ignore[index]


def test_unconditional_samples_do_not_depend_on_guidance(tiny_model: Build) -> None:
    model = tiny_model(conditioner=Unconditional())
    samples = tensor(model, count=3)
    assert samples.shape == (3, 3, 8, 8)
    close(samples, tensor(model, count=3, guidance_scale=1.0))
    differ(samples[0], samples[1])


def test_an_untrained_network_gives_finite_samples(tiny_model: Build) -> None:
    """It says zero everywhere, which leaves rescaling no std to divide by."""
    model = tiny_model()
    for parameter in model.network.head.parameters():
        parameter.data.zero_()
    states = model.states(model.condition(classes=[0, 1]), guidance=Guidance(3.0, torch.tensor([0.0, 0.7])))
    assert all(bool(state.x_next.isfinite().all()) for state in states)


# -- states ------------------------------------------------------------------------------------------


def test_states_begin_at_the_samples_own_noise_and_end_at_the_sample(model: DiffusionModel) -> None:
    states = list(model.states(model.condition(classes=[0, 1]), seed=9, numbers=[3, 7]))
    assert torch.equal(states[0].x_t, noise((3, 8, 8), 9, [3, 7]))
    assert [state.t for state in states] == model.parameterization.schedule.spaced(6).tolist()
    close(states[-1].x_next, states[-1].x0)


def test_states_carry_no_graph(model: DiffusionModel) -> None:
    """A video holds all of them: with gradients each would hold its step's activations too."""
    assert not any(state.x_next.requires_grad for state in model.states(model.condition(classes=[0])))


def test_pixels_predicted_on_the_way_are_held_in_range(model: DiffusionModel) -> None:
    for state in model.states(model.condition(classes=[0, 1]), guidance=Guidance(50.0)):
        assert float(state.x0.abs().max()) <= 1
        t = torch.full((2,), state.t)
        rebuilt = model.parameterization.schedule.add_noise(state.x0, state.eps, t)
        torch.testing.assert_close(rebuilt, state.x_t, rtol=1e-3, atol=1e-3)


# -- latents -----------------------------------------------------------------------------------------


class Halved(Identity):
    """Latents of half the sides and 12 channels, which may lie anywhere."""

    latent_channels, factor, bounded = 12, 2, False

    def encode(self, images: Tensor) -> Tensor:
        return 2 * torch.nn.functional.pixel_unshuffle(images, 2)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.pixel_shuffle(latents / 2, 2)


def test_latents_are_not_clipped_and_are_decoded(tiny_model: Build) -> None:
    model = tiny_model(autoencoder=Halved())
    states = list(model.states(model.condition(classes=[0, 1]), guidance=Guidance(8.0)))
    assert states[-1].x_next.shape == (2, 12, 8, 8)
    assert max(float(state.x0.abs().max()) for state in states) > 1
    samples = tensor(model, classes=[0, 1], guidance_scale=8.0)
    assert samples.shape == (2, 3, 16, 16)
    close(samples, model.autoencoder.decode(states[-1].x_next).clamp(-1, 1))
    assert tensor(model, classes=[0], height=24, width=8).shape == (1, 3, 24, 8)


def test_what_samples_depend_on_is_what_was_asked_and_the_runs_own_and_no_holding_of_latents(tiny_model: Build) -> None:
    in_pixels, in_latents = tiny_model(), tiny_model(autoencoder=Halved())
    for model, held in ((in_pixels, "static"), (in_latents, None)):
        facts = model.facts_of({"guidance_scale": 8.0, "sampler": None})
        assert facts == {**model.provenance, **vars(model.sampling), "guidance_scale": 8.0, "thresholding": held}
    assert in_pixels.facts_of({"thresholding": "dynamic"})["thresholding"] == "dynamic"


def test_latent_sizes_must_suit_the_autoencoder_too(tiny_model: Build) -> None:
    model = tiny_model(autoencoder=Halved())
    with pytest.raises(LabError, match="size 9x16: the autoencoder takes multiples of 2"):
        model.sample(classes=[0], height=9)
    with pytest.raises(LabError, match="thresholding=static: latents have no range"):
        model.sample(classes=[0], thresholding="static")
    with pytest.raises(LabError, match="size"):  # a latent of 9 x 8
        model.sample(classes=[0], height=18)
