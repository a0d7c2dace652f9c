"""Inversion, renoising and inpainting of pictures, through a tiny model's own `sample`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lab import editing
from lab.conditioning import Condition
from lab.diffusion import SAMPLERS
from lab.editing import Trajectory, inpaint, invert, pictures, renoise
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.quality import psnr
from lab.seeding import noise

Build = Callable[..., DiffusionModel]


def tensor(model: DiffusionModel, **settings: Any) -> Tensor:
    samples = model.sample(output="tensor", **settings)
    assert isinstance(samples, Tensor)
    return samples


@pytest.fixture
def images() -> Tensor:
    return 0.8 * torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).tanh()


@pytest.fixture
def model(tiny_model: Build) -> DiffusionModel:
    """Weights so small that every step is nearly linear, as those of a trained network are where it is certain."""
    model = tiny_model()
    for parameter in model.network.parameters():
        parameter.data *= 0.5
    return model


def inverted(model: DiffusionModel, images: Tensor, **settings: Any) -> Trajectory:
    return invert(model, images, model.condition(classes=[0, 1, 2]), num_inference_steps=20, **settings)


# -- inversion ---------------------------------------------------------------------------------------


def test_inversion_is_in_single_precision_whatever_the_model_samples_in(model: DiffusionModel, images: Tensor) -> None:
    exact = inverted(model, images)
    model.precision = "bf16"
    again = inverted(model, images)
    assert torch.equal(again.x, exact.x) and torch.equal(again.reconstruction, exact.reconstruction)
    assert model.precision == "bf16"


def test_what_was_inverted_comes_back(model: DiffusionModel, images: Tensor) -> None:
    trajectory = inverted(model, images)
    assert trajectory.x.shape == (21, 3, 3, 8, 8)
    assert torch.equal(trajectory.x[20], images)
    assert float(trajectory.psnr.min()) > 30
    torch.testing.assert_close(trajectory.psnr, psnr(trajectory.reconstruction, images))
    rough = inverted(model, images, fixed_point_iterations=1)
    assert bool((trajectory.psnr > rough.psnr).all())


def test_what_may_be_told_in_several_ways_comes_back_as_sample_tells_it(model: DiffusionModel, images: Tensor) -> None:
    vector = model.condition(classes=[0, 1, 2]).vector
    several = Condition(vector, choices=vector[:, None] * torch.tensor([[-1.0], [1], [2], [3]]))
    numbers = [5, 9, 2]
    tried: list[tuple[Trajectory, dict[str, Any]]] = [
        (invert(model, images, several, num_inference_steps=8), {}),
        (renoise(model, images, several, start_step=3, seed=7, numbers=numbers), {"seed": 7, "numbers": numbers}),
    ]
    for trajectory, how in tried:
        again = tensor(model, condition=several, **trajectory.start(guidance_scale=1.0), **how)
        torch.testing.assert_close(again, trajectory.reconstruction.cpu(), rtol=0, atol=1e-4)
        other = tensor(model, condition=several, **trajectory.start(guidance_scale=1.0), seed=8, numbers=[0, 1, 3])
        assert float((other - again).abs().max()) > 1e-2


def test_every_level_is_a_start(model: DiffusionModel, images: Tensor) -> None:
    trajectory = inverted(model, images)
    under: dict[str, Any] = {"guidance_scale": 1.0, "thresholding": "none"}
    for step in (0, 7, 19):
        back = tensor(model, classes=[0, 1, 2], **under, **trajectory.start(step))
        assert float(psnr(back, images).min()) > 30
        other = tensor(model, classes=[1, 2, 0], **under, **trajectory.start(step))
        if step < 19:
            assert float((other - back).abs().max()) > 1e-3
    with pytest.raises(LabError, match="step=20: use 0 to 19"):
        trajectory.start(20)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spacing": "karras"}, "spacing=karras: evaluation 10 is of t = 49, and t = "),
        ({"num_inference_steps": 40}, "num_inference_steps=40: evaluation 10 is of t = 49, and t = 7"),
        ({"num_inference_steps": 5}, "num_inference_steps=5: evaluation 10 is of t = 49, and nothing of 5 evaluations"),
        ({"sampler": "heun"}, "sampler=heun: evaluation 10 is of t = 49, and t = "),
    ],
)
def test_a_level_is_started_from_at_its_own_time_alone(
    model: DiffusionModel, images: Tensor, changes: dict[str, Any], told: str
) -> None:
    trajectory = inverted(model, images)
    with pytest.raises(LabError) as error:
        trajectory.start(10, **changes)
    assert told in str(error.value) and str(error.value).endswith("invert so, too")
    back = tensor(
        model, classes=[0, 1, 2], guidance_scale=1.0, thresholding="none", **trajectory.start(10, sampler="unipc")
    )
    assert float(psnr(back, images).min()) > 30


def test_inversion_may_stop_on_the_way(model: DiffusionModel, images: Tensor) -> None:
    whole, part = inverted(model, images), inverted(model, images, start_step=12)
    assert bool(part.x[:12].isnan().all())
    torch.testing.assert_close(part.x[12:], whole.x[12:])
    assert float(part.psnr.min()) > 30
    with pytest.raises(LabError, match="step=11: use 12 to 19"):
        part.start(11)


def test_guided_inversion_comes_back_whatever_the_runs_defaults_are(tiny_model: Build, images: Tensor) -> None:
    model = tiny_model()
    for parameter in model.network.parameters():
        parameter.data *= 0.5
    plain = inverted(model, images, guidance_scale=3.0)
    model.sampling = replace(model.sampling, rescale_phi=0.7, guidance_parallel=0.0, guidance_interval=(0.3, 1.0))
    torch.testing.assert_close(inverted(model, images, guidance_scale=3.0).psnr, plain.psnr)


def test_the_examples_of_the_docstring_run(model: DiffusionModel, images: Tensor) -> None:
    model.sampling = replace(model.sampling, num_inference_steps=40)
    names = {**vars(editing), "model": model, "pictures": images, "mask": torch.ones(8, 8)}
    _, examples = (editing.__doc__ or "").split("\n\n", 1)
    for line in examples.strip().splitlines():
        exec(line, names)
    changed = renoise(model, images, model.condition(classes=[0]), start_step=20).start(30, sampler="dpmpp_2m")
    assert changed["sampler"] == "dpmpp_2m" and changed["start_step"] == 30


def test_one_condition_serves_all_pictures(model: DiffusionModel, images: Tensor) -> None:
    rose = model.condition(classes=["rose"])
    together = invert(model, images, rose, num_inference_steps=5)
    alone = invert(model, images[1:2], rose, num_inference_steps=5)
    torch.testing.assert_close(together.x[:, 1:2], alone.x, rtol=0, atol=1e-5)


# -- renoising ---------------------------------------------------------------------------------------


def test_renoising_is_the_forward_process_with_one_noise_an_image(model: DiffusionModel, images: Tensor) -> None:
    roses = model.condition(classes=[0])
    settings: dict[str, Any] = {"start_step": 4, "num_inference_steps": 10, "seed": 3, "numbers": [5, 6, 7]}
    trajectory = renoise(model, images, roses, **settings)
    times = model.times(10, "ddim")
    for step in range(4, 10):
        expected = model.parameterization.schedule.add_noise(
            images, noise((3, 8, 8), 3, [5, 6, 7]), times[step].expand(3)
        )
        torch.testing.assert_close(trajectory.x[step], expected)
    assert torch.equal(trajectory.x[10], images)
    assert bool(trajectory.x[:4].isnan().all())


def test_less_noise_keeps_more_of_the_picture(model: DiffusionModel, images: Tensor) -> None:
    roses = model.condition(classes=[0])
    kept = [
        float(renoise(model, images, roses, start_step=step, num_inference_steps=20).psnr.mean())
        for step in (0, 10, 15, 19)
    ]
    assert kept == sorted(kept)
    assert kept[-1] > kept[0] + 5


# -- inpainting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("plms", "lms")])
def test_known_pixels_stay_and_the_others_are_painted(model: DiffusionModel, images: Tensor, sampler: str) -> None:
    mask = torch.zeros(8, 8)
    mask[:, :4] = 1
    painted = tensor(model, classes=[0, 1, 2], sampler=sampler, **inpaint(model, images, mask))
    torch.testing.assert_close(painted[..., :4], images[..., :4], rtol=0, atol=1e-4)
    assert float((painted[..., 4:] - images[..., 4:]).abs().mean()) > 0.1
    free = tensor(model, classes=[0, 1, 2], sampler=sampler)
    assert float((painted - free).abs()[..., 4:].max()) > 1e-3  # what is known has a say in what is painted


def test_masks_of_ones_and_zeros(model: DiffusionModel, images: Tensor) -> None:
    everything = tensor(model, classes=[0, 1, 2], **inpaint(model, images, torch.ones(8, 8)))
    torch.testing.assert_close(everything, images, rtol=0, atol=1e-5)
    nothing = tensor(model, classes=[0, 1, 2], **inpaint(model, images, torch.zeros(3, 1, 8, 8)))
    torch.testing.assert_close(nothing, tensor(model, classes=[0, 1, 2]), rtol=0, atol=1e-5)


def test_inpainting_one_picture_does_not_depend_on_the_batch(model: DiffusionModel, images: Tensor) -> None:
    mask = (torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    together = tensor(model, classes=[0, 1, 2], batch_size=2, **inpaint(model, images, mask))
    alone = tensor(model, classes=[1], numbers=[1], **inpaint(model, images[1:2], mask[1:2]))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


# -- what is taken as a picture, and what is refused ---------------------------------------------------


def test_files_and_pil_images_become_squares_of_the_models_size(model: DiffusionModel, tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 24), (255, 0, 0))
    picture.save(tmp_path / "red.png")
    both = pictures(model, [picture, tmp_path / "red.png"])
    assert both.shape == (2, 3, 8, 8)
    assert torch.equal(both[0], both[1])
    assert both[0, :, 0, 0].tolist() == [1, -1, -1]


def test_mistakes_are_one_line_that_names_them(model: DiffusionModel, images: Tensor) -> None:
    rose = model.condition(classes=[0])
    mistakes: list[tuple[str, Callable[[], Any]]] = [
        (r"images \(3, 8, 8\): a tensor must be \(B, 3, H, W\)", lambda: invert(model, images[0], rose)),
        ("images: a tensor must lie in", lambda: invert(model, 200 * images, rose)),
        ("images: a tensor must lie in", lambda: invert(model, images * torch.nan, rose)),
        ("images: give a list", lambda: invert(model, "rose.jpg", rose)),
        (r"images=\[\]: give at least one", lambda: invert(model, [], rose)),
        ("condition has 2 rows for 3 images", lambda: invert(model, images, model.condition(classes=[0, 1]))),
        ("numbers has 1 values for 3 images", lambda: renoise(model, images, rose, start_step=1, numbers=[0])),
        ("mask: use values from 0, paint, to 1", lambda: inpaint(model, images, 255 * torch.ones(8, 8))),
        (r"mask \(3, 8, 8\): use", lambda: inpaint(model, images, torch.ones(3, 8, 8))),
        ("fixed_point_iterations=0: use at least 1", lambda: invert(model, images, rose, fixed_point_iterations=0)),
        ("start_step=6: use 0 to 5", lambda: renoise(model, images, rose, start_step=6)),
        (r"mask \(4, 4\): use \(8, 8\)", lambda: inpaint(model, images, torch.ones(4, 4))),
        ("start_step=2: use 0 to 5, and above 0 give latents", lambda: model.sample(classes=[0], start_step=2)),
        ("latents has 2 rows for 3 samples", lambda: model.sample(classes=[0, 1, 2], latents=images[:2])),
        ("condition is given together with", lambda: model.sample(classes=[0], condition=rose)),
    ]
    for words, mistake in mistakes:
        with pytest.raises(LabError, match=words) as error:
            mistake()
        assert "\n" not in str(error.value)
