"""A model as people use it: samples that depend on what is asked for them and on nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lab.conditioning import Condition, Conditioner, Unconditional
from lab.diffusion import SAMPLERS, SamplerState
from lab.errors import LabError
from lab.model import DiffusionModel


def tensor(model: DiffusionModel, *args: Any, **settings: Any) -> Tensor:
    samples = model.sample(*args, output="tensor", **settings)
    assert isinstance(samples, Tensor)
    return samples


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def differ(one: Tensor, other: Tensor) -> None:
    assert float((one - other).abs().max()) > 1e-2


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_same_request_gives_the_same_samples(model: DiffusionModel, sampler: str) -> None:
    asked = {"classes": ["rose", 1], "seed": 5, "sampler": sampler}
    torch.manual_seed(1)
    first = tensor(model, **asked)
    torch.manual_seed(2)
    assert torch.equal(first, tensor(model, **asked))
    differ(first, tensor(model, **{**asked, "seed": 6}))


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_sample_is_the_same_alone_and_in_a_batch(model: DiffusionModel, sampler: str) -> None:
    """With DDPM the noise of every step must be the sample's own, too."""
    together = tensor(model, classes=[0, 1, 2, 0], sampler=sampler, seed=3)
    for i, label in enumerate((0, 1, 2, 0)):
        close(tensor(model, classes=[label], sampler=sampler, seed=3, numbers=[i]), together[i : i + 1])
        states = list(model.states(model.condition(classes=[label]), seed=3, numbers=[i], sampler=sampler))
        close(states[-1].x_next.clamp(-1, 1), together[i : i + 1])
    differ(together[0], together[3])  # the same class, another number


def test_each_sample_makes_its_own_choice(model: DiffusionModel) -> None:
    """Of what is told in several ways; on the way to another condition too."""
    ways = model.condition(classes=[0, 1, 2]).vector
    several = Condition(ways[0:1], choices=ways[None])
    asked = {"count": 12, "seed": 4, "batch_size": 5}
    together = tensor(model, condition=several, **asked)
    chosen = several[torch.zeros(12, dtype=torch.long)].chosen(4, range(12))
    assert len(chosen.vector.unique(dim=0)) == 3
    close(together, tensor(model, condition=chosen, **{**asked, "count": 1}))
    close(together[7:8], tensor(model, condition=several, seed=4, numbers=[7]))
    switched = {"condition": Condition(ways[2:]), "switch_step": 1}
    close(tensor(model, then=several, **asked, **switched), tensor(model, then=chosen, **asked, **switched))


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


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_equal_numbers_share_their_noise(model: DiffusionModel, sampler: str) -> None:
    """One picture in every row of a sweep, however the batch is split; one number stands for all."""
    plain = tensor(model, classes=[0], sampler=sampler, numbers=[4])
    for numbers in ([4, 4, 4], [4]):
        same = tensor(model, classes=[0, 0, 0], sampler=sampler, numbers=numbers, batch_size=2)
        close(same, plain.expand(3, -1, -1, -1))


def test_every_knob_reaches_the_samples(model: DiffusionModel) -> None:
    asked: dict[str, Any] = {"classes": ["rose", "rose"]}
    plain = tensor(model, **asked)
    changes: list[dict[str, Any]] = [
        {"classes": ["daisy", "daisy"]}, {"guidance_scale": 5.0}, {"guidance_scale": 0.0}, {"seed": 1},
        {"sampler": "ddpm"}, {"num_inference_steps": 9}, {"eta": 1.0}, {"spacing": "karras"},
        {"guidance_interval": (0.5, 1)}, {"rescale_phi": 0.7}, {"guidance_parallel": 0.0},
    ]  # fmt: skip
    for change in changes:
        differ(plain, tensor(model, **{**asked, **change}))
    for default in ({"guidance_scale": 2.0}, {"sampler": "ddim"}, {"num_inference_steps": 6}, {"eta": 0.0}):
        assert torch.equal(plain, tensor(model, **asked, **default))


def test_every_sample_has_an_interval_of_its_own(model: DiffusionModel) -> None:
    lows = torch.tensor([0.0, 0.4, 0.8])
    together = tensor(model, classes=[0, 0, 0], guidance_interval=(lows, 1.0), numbers=[0], batch_size=2)
    for i, low in enumerate(lows.tolist()):
        close(tensor(model, classes=[0], guidance_interval=(low, 1.0)), together[i : i + 1])
    differ(together[1], together[2])


def test_outside_the_interval_the_network_is_asked_once(model: DiffusionModel) -> None:
    seen: list[int] = []
    model.network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    tensor(model, classes=[0], guidance_interval=(0.5, 1.0))  # 6 steps from 99 down to 16
    assert seen == [2, 2, 2, 1, 1, 1]


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
    assert torch.equal(list(model.states(model.condition(classes=[0])))[-1].x_next.clamp(-1, 1), expected)


# -- what comes out ----------------------------------------------------------------------------------


def test_the_callback_sees_every_step_of_every_part(model: DiffusionModel) -> None:
    seen: list[SamplerState] = []
    samples = tensor(model, classes=[0, 1, 2], batch_size=2, callback=seen.append)
    assert [(state.step, len(state.x_t)) for state in seen] == [(s, b) for b in (2, 1) for s in range(6)]
    assert torch.equal(torch.cat([seen[5].x_next, seen[11].x_next]).clamp(-1, 1), samples)


@pytest.mark.parametrize(("conditioner", "rows"), [(Unconditional(), 3), (None, 6)])
def test_a_model_without_conditions_pays_for_one_branch(
    tiny_model: Callable[..., DiffusionModel], conditioner: Conditioner | None, rows: int
) -> None:
    model, seen = tiny_model(conditioner=conditioner), []
    model.network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    model.sample(classes=None if conditioner else [0], count=3, guidance_scale=3.0)
    assert set(seen) == {rows}


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


# -- mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"classes": ["rose"], "sampler": "dimm"}, "sampler=dimm: use one of ddim, ddpm, plms"),
        (
            {"classes": ["rose"], "sampler": "heun", "eta": 0.5},
            "eta=0.5: heun adds no noise; ddim, ddpm, euler_ancestral",
        ),
        ({"classes": ["rose"], "spacing": "even"}, "spacing=even: use one of trailing, karras"),
        ({"classes": ["rose"], "thresholding": "soft"}, "thresholding=soft: use one of none, static, dynamic"),
        ({"classes": ["rose"], "rescale_phi": torch.ones(3)}, "rescale_phi has 3 values for 1 samples"),
        ({"classes": ["rose"], "output": "PIL"}, "output=PIL: use pil or tensor"),
        ({"classes": ["rose"], "num_inference_steps": 0}, "steps=0: use 1 to 100"),
        ({"classes": ["rose"], "num_inference_steps": 101}, "steps=101: use 1 to 100"),
        ({"classes": ["rose"], "count": 0}, "count=0: use at least 1"),
        ({"classes": ["rose"], "batch_size": 0}, "batch_size=0: use at least 1"),
        ({"classes": ["rose"], "height": 9}, "size 9x8: the network takes multiples of 2"),
        ({"classes": ["rose"], "width": 0}, "size 8x0: the network"),
        ({"classes": ["rose"], "height": -8}, "size -8x8: the network"),
        ({"classes": ["rose"], "guidance_scale": torch.ones(3)}, "guidance_scale has 3 values for 1 samples"),
        ({"classes": ["rose"], "guidance_scale": float("nan")}, "guidance_scale=nan: use finite numbers"),
        ({"classes": ["rose"], "rescale_phi": [float("inf")]}, "rescale_phi=inf: use finite numbers"),
        ({"classes": ["rose"], "numbers": [1, 2]}, "numbers has 2 values for 1 samples"),
        ({"classes": ["rose"], "guidance_interval": (0.5, 0.1)}, "guidance_interval=[0.5, 0.1]: use two levels"),
        ({"classes": ["nettle"]}, "classes=nettle: no such class"),
        ({"classes": ["rose"], "prompts": ["rose"]}, "prompts and classes are given together"),
        ({"classes": []}, "classes=[]: name at least one"),
        ({"prompts": "rose"}, "prompts=rose: give a list"),
        ({"images": ["a.png"]}, "class-conditional"),
        ({}, "give classes="),
    ],
)
def test_mistakes_are_one_line_that_names_them(model: DiffusionModel, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(LabError) as error:
        model.sample(**asked)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_in_bf16_the_network_alone_is_rounded(model: DiffusionModel) -> None:
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        seen.append((given[0].dtype, out.dtype))

    model.network.stem.register_forward_hook(note)
    exact = tensor(model, classes=[0, 1])
    model.precision = "bf16"
    rounded = tensor(model, classes=[0, 1])
    evaluations = len(model.times())
    assert seen == evaluations * [(torch.float32, torch.float32)] + evaluations * [(torch.float32, torch.bfloat16)]
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, rtol=0, atol=0.1)


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("bf16", True)])
def test_single_precision_is_no_tf32(model: DiffusionModel, precision: Any, tf32: bool) -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    seen: list[bool] = []
    model.network.register_forward_pre_hook(lambda *_: seen.extend([matmul.allow_tf32, cudnn.allow_tf32]))
    model.precision, before = precision, (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    try:
        tensor(model, classes=[0])
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
    assert set(seen) == {tf32}


def test_a_precision_holds_as_long_as_it_is_asked_for(model: DiffusionModel) -> None:
    with model.in_precision("bf16"):
        assert model.precision == "bf16"
        with pytest.raises(LabError), model.in_precision("fp32"):
            model.sample(classes=["thistle"])
        assert model.precision == "bf16"
    assert model.precision == "fp32"
    model.precision = "fp16"  # type: ignore[assignment]
    with pytest.raises(LabError, match="precision=fp16"):
        model.sample(classes=[0])


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_in_bf16_too_the_batch_size_changes_next_to_nothing(model: DiffusionModel, batch_size: int) -> None:
    model.precision = "bf16"
    asked: dict[str, Any] = {"classes": [0, 1, 2, 0, 1]}
    apart = (tensor(model, batch_size=batch_size, **asked) - tensor(model, **asked)).square().mean().sqrt()
    assert float(apart) < 0.01


def test_samples_may_be_changed_and_learned_from(model: DiffusionModel) -> None:
    samples = tensor(model, classes=[0, 1])
    layer = nn.Conv2d(3, 1, 1)
    layer(samples.mul_(0.5)).sum().backward()  # refused for tensors of inference mode
    assert layer.weight.grad is not None and bool(layer.weight.grad.isfinite().all())
