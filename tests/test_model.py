"""A model as people use it: samples that depend on what is asked for them and on nothing else."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lab.autoencoders import Identity
from lab.conditioning import ClassEmbedding, Condition, Conditioner, Unconditional
from lab.diffusion import Guidance, NoiseSchedule, Parameterization, SamplerState
from lab.errors import LabError
from lab.model import DiffusionModel, SamplingDefaults
from lab.networks import UNet
from lab.seeding import noise

NAMES = ("rose", "daisy", "tulip")


class Halved(Identity):
    """Latents of half the sides and 12 channels, which may lie anywhere."""

    latent_channels, factor, bounded = 12, 2, False

    def encode(self, images: Tensor) -> Tensor:
        return 2 * torch.nn.functional.pixel_unshuffle(images, 2)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.pixel_shuffle(latents / 2, 2)


def build(
    prediction_type: str = "v", conditioner: Conditioner | None = None, autoencoder: Identity | None = None
) -> DiffusionModel:
    """A tiny model with every weight drawn anew, so that condition, time and noise all matter."""
    autoencoder = autoencoder or Identity()
    conditioner = conditioner or ClassEmbedding(6, class_names=NAMES)
    network = UNet(
        in_channels=autoencoder.latent_channels,
        sample_size=8,
        condition_dim=conditioner.dim,
        channels=8,
        multipliers=(1, 2),
        blocks=1,
        linear_attention=(8,),
        full_attention=(4,),
        head_dim=8,
    )
    draw = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.15 * torch.randn(parameter.shape, generator=draw)
    for parameter in conditioner.parameters():
        parameter.data = 2 * torch.randn(parameter.shape, generator=draw)
    formulas = Parameterization(NoiseSchedule("cosine", 100), prediction_type)
    defaults = SamplingDefaults(num_inference_steps=6, guidance_scale=2.0)
    return DiffusionModel(network, conditioner, autoencoder, formulas, 8 * autoencoder.factor, defaults)


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return build()


def tensor(model: DiffusionModel, *args: Any, **settings: Any) -> Tensor:
    samples = model.sample(*args, output="tensor", **settings)
    assert isinstance(samples, Tensor)
    return samples


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def differ(one: Tensor, other: Tensor) -> None:
    assert float((one - other).abs().max()) > 1e-2


# -- what a sample depends on ------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_same_request_gives_the_same_samples(model: DiffusionModel, sampler: str) -> None:
    asked = {"classes": ["rose", 1], "seed": 5, "sampler": sampler}
    torch.manual_seed(1)
    first = tensor(model, **asked)
    torch.manual_seed(2)
    assert torch.equal(first, tensor(model, **asked))
    differ(first, tensor(model, **{**asked, "seed": 6}))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_sample_is_the_same_alone_and_in_a_batch(model: DiffusionModel, sampler: str) -> None:
    """With DDPM the noise of every step must be the sample's own, too."""
    together = tensor(model, classes=[0, 1, 2, 0], sampler=sampler, seed=3)
    for i, label in enumerate((0, 1, 2, 0)):
        inputs = model.conditioner.inputs(_request([label]))
        states = list(model.states(inputs, seed=3, indices=[i], sampler=sampler))
        close(states[-1].x_next.clamp(-1, 1), together[i : i + 1])
    differ(together[0], together[3])  # the same class, another number


def _request(classes: Sequence[str | int]) -> Any:
    from lab.conditioning.base import Request

    return Request(classes=classes)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_the_batch_size_changes_nothing(model: DiffusionModel, sampler: str, batch_size: int) -> None:
    asked = {
        "classes": [0, 1, 2, 0, 1],
        "sampler": sampler,
        "guidance_scale": torch.tensor([0.0, 1, 2, -3, 8]),
    }
    close(tensor(model, batch_size=batch_size, **asked), tensor(model, **asked))


def test_count_gives_each_request_its_samples_in_turn(model: DiffusionModel) -> None:
    samples = tensor(model, classes=["rose", "daisy"], count=3)
    assert samples.shape == (6, 3, 8, 8)
    close(samples, tensor(model, classes=[0, 0, 0, 1, 1, 1]))
    close(samples[:3], tensor(model, classes=["rose"], count=3))
    differ(samples[3:], tensor(model, classes=["rose"], count=6)[3:])


def test_every_knob_reaches_the_samples(model: DiffusionModel) -> None:
    asked: dict[str, Any] = {"classes": ["rose", "rose"]}
    plain = tensor(model, **asked)
    changes: list[dict[str, Any]] = [
        {"classes": ["daisy", "daisy"]}, {"guidance_scale": 5.0}, {"guidance_scale": 0.0}, {"sampler": "ddpm"},
        {"num_inference_steps": 9}, {"seed": 1}, {"eta": 1.0},
    ]  # fmt: skip
    for change in changes:
        differ(plain, tensor(model, **{**asked, **change}))
    for default in ({"guidance_scale": 2.0}, {"sampler": "ddim"}, {"num_inference_steps": 6}, {"eta": 0.0}):
        assert torch.equal(plain, tensor(model, **asked, **default))


def test_ddpm_is_ddim_with_eta_1(model: DiffusionModel) -> None:
    """Both take the sample's own noise of each step, so they agree picture by picture."""
    one = tensor(model, classes=[0, 1], sampler="ddpm", num_inference_steps=20)
    close(one, tensor(model, classes=[0, 1], sampler="ddim", eta=1.0, num_inference_steps=20))


def test_sampling_does_not_touch_the_global_generator(model: DiffusionModel) -> None:
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    tensor(model, classes=[0], sampler="ddpm")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dropout_is_off_even_in_a_model_that_was_training(model: DiffusionModel) -> None:
    expected = tensor(model, classes=[0])
    model.train()
    assert torch.equal(tensor(model, classes=[0]), expected)
    model.train()
    assert torch.equal(list(model.states(torch.tensor([0])))[-1].x_next.clamp(-1, 1), expected)


# -- guidance ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_a_tensor_of_scales_equals_single_runs(prediction_type: str) -> None:
    """A sweep is one batch: every scale on the same class and (its number's) noise."""
    model = build(prediction_type)
    scales = [-10.0, -1.0, 0.0, 0.5, 1.0, 3.0, 10.0]
    together = tensor(model, classes=["rose"] * len(scales), guidance_scale=torch.tensor(scales))
    for i, scale in enumerate(scales):
        close(
            together[i : i + 1],
            tensor(model, classes=["rose"] * len(scales), guidance_scale=scale)[i : i + 1],
        )


def calls(model: DiffusionModel) -> list[int]:
    """Grows by the number of rows of each network call from now on."""
    rows: list[int] = []
    model.network.register_forward_pre_hook(lambda network, args: rows.append(len(args[0])))
    return rows


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_cheap_scales_equal_the_full_formula(scale: float) -> None:
    """One branch instead of two; a second sample with another scale forces both."""
    model = build()
    rows = calls(model)
    short = tensor(model, classes=[0, 1], guidance_scale=scale)
    assert rows == [2] * 6
    full = tensor(model, classes=[0, 1], guidance_scale=torch.tensor([scale, 3.0]))
    assert rows[6:] == [4] * 6
    close(short[:1], full[:1])


def test_scale_0_is_the_null_condition_and_scale_1_the_class(model: DiffusionModel) -> None:
    close(
        tensor(model, classes=["rose"], guidance_scale=0), tensor(model, classes=["tulip"], guidance_scale=0)
    )
    differ(
        tensor(model, classes=["rose"], guidance_scale=1), tensor(model, classes=["tulip"], guidance_scale=1)
    )


def test_guidance_rescaling_reaches_the_states(model: DiffusionModel) -> None:
    inputs = torch.tensor([0, 0])
    knobs = Guidance(6.0, torch.tensor([0.0, 0.7]))
    both = list(model.states(inputs, indices=[4, 4], guidance=knobs))[-1].x_next
    for row, phi in ((0, 0.0), (1, 0.7)):
        alone = list(model.states(inputs[:1], indices=[4], guidance=Guidance(6.0, phi)))[-1].x_next
        close(both[row : row + 1], alone)
    differ(both[0], both[1])


# -- states ------------------------------------------------------------------------------------------


def test_states_begin_at_the_samples_own_noise_and_end_at_the_sample(model: DiffusionModel) -> None:
    states = list(model.states(torch.tensor([0, 1]), seed=9, indices=[3, 7]))
    assert torch.equal(states[0].x_t, noise((3, 8, 8), 9, [3, 7]))
    assert [state.t for state in states] == model.parameterization.schedule.spaced(6).tolist()
    close(states[-1].x_next, states[-1].x0)


def test_states_carry_no_graph(model: DiffusionModel) -> None:
    """A video holds all of them: with gradients each would hold its step's activations too."""
    assert not any(state.x_next.requires_grad for state in model.states(torch.tensor([0])))


def test_pixels_predicted_on_the_way_are_held_in_range(model: DiffusionModel) -> None:
    for state in model.states(torch.tensor([0, 1]), guidance=Guidance(50.0)):
        assert float(state.x0.abs().max()) <= 1
        t = torch.full((2,), state.t)
        rebuilt = model.parameterization.schedule.add_noise(state.x0, state.eps, t)
        torch.testing.assert_close(rebuilt, state.x_t, rtol=1e-3, atol=1e-3)


def test_latents_are_not_clipped_and_are_decoded() -> None:
    model = build(autoencoder=Halved())
    states = list(model.states(torch.tensor([0, 1]), guidance=Guidance(8.0)))
    assert states[-1].x_next.shape == (2, 12, 8, 8)
    assert max(float(state.x0.abs().max()) for state in states) > 1
    samples = tensor(model, classes=[0, 1], guidance_scale=8.0)
    assert samples.shape == (2, 3, 16, 16)
    close(samples, model.autoencoder.decode(states[-1].x_next).clamp(-1, 1))
    assert tensor(model, classes=[0], height=24, width=8).shape == (1, 3, 24, 8)


def test_the_callback_sees_every_step_of_every_part(model: DiffusionModel) -> None:
    seen: list[SamplerState] = []
    samples = tensor(model, classes=[0, 1, 2], batch_size=2, callback=seen.append)
    assert [(state.step, len(state.x_t)) for state in seen] == [(s, b) for b in (2, 1) for s in range(6)]
    assert torch.equal(torch.cat([seen[5].x_next, seen[11].x_next]).clamp(-1, 1), samples)


# -- what comes out ----------------------------------------------------------------------------------


def test_pictures_are_the_tensor_in_bytes(model: DiffusionModel) -> None:
    samples = tensor(model, classes=[0, 1], height=12, width=20)
    assert samples.shape == (2, 3, 12, 20) and samples.dtype == torch.float32
    assert -1 <= float(samples.min()) < float(samples.max()) <= 1
    pictures = model.sample(classes=[0, 1], height=12, width=20)
    assert isinstance(pictures, list)
    for picture, sample in zip(pictures, samples, strict=True):
        assert (picture.mode, picture.size) == ("RGB", (20, 12))
        byte = ((sample + 1) * 127.5).round().clamp(0, 255)
        assert picture.getpixel((19, 2)) == tuple(int(v) for v in byte[:, 2, 19])


def test_prompts_come_first_and_one_side_may_be_given(model: DiffusionModel) -> None:
    close(tensor(model, ["rose", "daisy"]), tensor(model, classes=["rose", "daisy"]))
    assert tensor(model, ["rose"], width=4).shape == (1, 3, 8, 4)


def test_unconditional_samples_do_not_depend_on_guidance() -> None:
    model = build(conditioner=Unconditional())
    samples = tensor(model, count=3)
    assert samples.shape == (3, 3, 8, 8)
    close(samples, tensor(model, count=3, guidance_scale=1.0))
    differ(samples[0], samples[1])


def test_an_untrained_network_gives_finite_samples() -> None:
    """It says zero everywhere, which leaves rescaling no std to divide by."""
    model = build()
    for parameter in model.network.head.parameters():
        parameter.data.zero_()
    states = model.states(torch.tensor([0, 1]), guidance=Guidance(3.0, torch.tensor([0.0, 0.7])))
    assert all(bool(state.x_next.isfinite().all()) for state in states)


# -- mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"classes": ["rose"], "sampler": "dimm"}, "sampler=dimm: use one of ddim, ddpm"),
        ({"classes": ["rose"], "num_inference_steps": 0}, "steps=0: use 1 to 100"),
        ({"classes": ["rose"], "num_inference_steps": 101}, "steps=101: use 1 to 100"),
        ({"classes": ["rose"], "count": 0}, "count=0: use at least 1"),
        ({"classes": ["rose"], "batch_size": 0}, "batch_size=0: use at least 1"),
        ({"classes": ["rose"], "height": 9}, "size 9x8: the network takes multiples of 2"),
        ({"classes": ["rose"], "width": 0}, "size 8x0: the network"),
        ({"classes": ["rose"], "height": -8}, "size -8x8: the network"),
        ({"classes": ["rose"], "guidance_scale": torch.ones(3)}, "guidance_scale has 3 values for 1 samples"),
        ({"classes": ["nettle"]}, "classes=nettle: no such class"),
        ({"classes": ["rose"], "prompts": ["rose"]}, "prompts and classes are given together"),
        ({"classes": []}, "classes=[]: name at least one"),
        ({"prompts": "rose"}, "prompts=rose: give a list"),
        ({"images": ["a.png"]}, "class-conditional"),
        ({}, "give classes="),
    ],
)
def test_mistakes_are_one_line_that_names_them(
    model: DiffusionModel, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError) as error:
        model.sample(**asked)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_latent_sizes_must_suit_the_autoencoder_too() -> None:
    model = build(autoencoder=Halved())
    with pytest.raises(LabError, match="size 9x16: the autoencoder takes multiples of 2"):
        model.sample(classes=[0], height=9)
    with pytest.raises(LabError, match="size"):  # a latent of 9 x 8
        model.sample(classes=[0], height=18)


def test_both_branches_share_one_call_with_the_null_last(model: DiffusionModel) -> None:
    seen: list[Condition] = []
    hook = model.network.register_forward_pre_hook(lambda network, args: seen.append(args[2]))
    next(iter(model.states(torch.tensor([2, 0]))))
    hook.remove()
    table = model.conditioner.embedding.weight  # type: ignore[union-attr]
    assert torch.equal(seen[0].vector, table[[2, 0, 3, 3]])  # type: ignore[index]
