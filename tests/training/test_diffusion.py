"""The diffusion task: what a step draws, shares among processes, and counts as its error."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lab.autoencoders import Identity
from lab.conditioning import Unconditional
from lab.conditioning.base import Request
from lab.data import BatchStream, ImageSet
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.render import read_provenance
from lab.training import DiffusionTask

B = 12


@pytest.fixture
def images() -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (20, 8, 8, 3), dtype=torch.uint8, generator=draw)
    return ImageSet("some", pixels, torch.arange(20) % 3, ("rose", "daisy", "tulip"), 8, (), (), "0" * 16)


@pytest.fixture
def task(model: DiffusionModel, images: ImageSet) -> DiffusionTask:
    return DiffusionTask(model, BatchStream(images, B, seed=1), seed=1)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# -- inputs ------------------------------------------------------------------------------------------


def test_inputs_depend_on_the_seed_and_step_alone(task: DiffusionTask, model: DiffusionModel, images: ImageSet) -> None:
    first = task.inputs(4)
    torch.manual_seed(9)
    task.inputs(3)
    assert same(first, task.inputs(4))
    later = task.inputs(5)
    assert all(not torch.equal(first[key], later[key]) for key in ("images", "t", "eps"))
    other = DiffusionTask(model, BatchStream(images, B, seed=1), seed=2).inputs(4)
    assert all(not torch.equal(first[key], other[key]) for key in ("t", "eps"))
    assert first["images"].shape == first["eps"].shape == (B, 3, 8, 8)
    assert first["t"].dtype == torch.int64
    assert torch.equal(first["condition"], images.labels[task.stream.indices(4)])


def test_inputs_leave_the_global_generator_alone(task: DiffusionTask) -> None:
    before = torch.random.get_rng_state()
    task.inputs(0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_see_what_one_sees(task: DiffusionTask, world: int) -> None:
    parts = [task.inputs(7, rank, world) for rank in range(world)]
    together = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    assert same(together, task.inputs(7))


def test_time_steps_cover_all_noise_levels_in_each_batch(task: DiffusionTask) -> None:
    """One in each of B equal parts of the schedule, and none is left out over time."""
    drawn = torch.stack([task.inputs(step)["t"] for step in range(200)])  # (200, B) of 0..99
    parts = (drawn.sort(dim=1).values + 0.5) * B / 100
    assert bool(((parts - torch.arange(B) > -0.2) & (parts - torch.arange(B) < 1.2)).all())
    counts = torch.bincount(drawn.flatten(), minlength=100)
    assert len(counts) == 100
    assert int(counts.min()) > 5
    order = drawn.argsort(dim=1).float().mean(dim=0)
    assert float((order - (B - 1) / 2).abs().max()) < 1.5  # no image of the batch gets the same part each time


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_conditions_are_dropped_at_the_conditioners_rate(task: DiffusionTask, share: float) -> None:
    task.model.conditioner.dropout = share
    dropped = torch.cat([task.inputs(step)["drop"] for step in range(100)]).float().mean()
    assert float(dropped) == pytest.approx(share, abs=0.04)


def test_noise_has_the_shape_of_the_latents(tiny_model: Callable[..., DiffusionModel], images: ImageSet) -> None:
    class Halved(Identity):
        """Latents of half the size and 5 channels."""

        latent_channels, factor = 5, 2

    model = tiny_model(conditioner=Unconditional(), autoencoder=Halved())
    eps = DiffusionTask(model, BatchStream(images, B, seed=1), seed=1).inputs(0)["eps"]
    assert eps.shape == (B, 5, 4, 4)
    assert abs(float(eps.mean())) < 0.1
    assert float(eps.std()) == pytest.approx(1, abs=0.1)


# -- the error ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v"])
def test_the_loss_is_the_weighted_squared_error(
    tiny_model: Callable[..., DiffusionModel], images: ImageSet, prediction_type: str
) -> None:
    model = tiny_model(prediction_type)
    task = DiffusionTask(model, BatchStream(images, B, seed=1), seed=1).eval()
    given = task.inputs(0)
    losses = task(**given)
    assert losses["loss"].shape == (B,)
    level = model.parameterization.schedule.alphas_cumprod[given["t"]].float().view(B, 1, 1, 1)
    alpha, sigma = level.sqrt(), (1 - level).sqrt()
    x0, eps = given["images"], given["eps"]
    x_t = alpha * x0 + sigma * eps
    condition = model.conditioner(given["condition"], given["drop"])
    out = model.network(x_t, given["t"], condition)
    truth = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[prediction_type]
    weight = model.parameterization.loss_weight(given["t"]).float()
    expected = (out - truth).square().mean(dim=(1, 2, 3)) * weight
    torch.testing.assert_close(losses["loss"], expected, rtol=1e-4, atol=1e-5)
    guess = {"eps": (x_t - sigma * out) / alpha, "x0": out, "v": alpha * x_t - sigma * out}[prediction_type]
    torch.testing.assert_close(losses["x0_error"], (guess - x0).square().mean(), rtol=1e-3, atol=1e-4)
    assert losses["loss"].requires_grad
    assert not losses["x0_error"].requires_grad


def test_a_dropped_condition_does_not_reach_the_network(task: DiffusionTask) -> None:
    task.eval()
    given = task.inputs(0)
    other = {**given, "condition": (given["condition"] + 1) % 3}

    def loss(inputs: dict[str, Tensor], drop: bool) -> Tensor:
        result: Tensor = task(**{**inputs, "drop": torch.full((B,), drop)})["loss"]
        return result

    assert torch.equal(loss(given, True), loss(other, True))
    assert bool((loss(given, False) != loss(other, False)).all())


def test_epochs_and_culprits_are_the_streams(task: DiffusionTask) -> None:
    assert task.epoch(10) == 10 * B / 20
    assert task.culprits(3) == [(index, "") for index in task.stream.indices(3).tolist()]


# -- previews ----------------------------------------------------------------------------------------


def sheet(task: DiffusionTask, folder: Path, step: int) -> Image.Image:
    task.preview(folder, step)
    return Image.open(folder / f"step_{step:07d}.png").convert("RGB")


def test_a_preview_is_a_sheet_of_the_same_noise_each_time(
    model: DiffusionModel, images: ImageSet, tmp_path: Path
) -> None:
    request = Request(classes=["rose", "tulip"])
    task = DiffusionTask(model, BatchStream(images, B, seed=1), 1, request, preview_count=2)
    numbers: dict[str, Any] = task.preview(tmp_path, 30)
    samples = model.sample(classes=["rose", "tulip"], count=2, output="tensor")
    assert isinstance(samples, Tensor)
    assert numbers == {"sample_std": pytest.approx(float(samples.std()))}
    facts = read_provenance(tmp_path / "step_0000030.png")
    assert facts["step"] == 30
    assert "ddim 6" in facts["title"]
    again = sheet(task, tmp_path / "again", 30)
    assert again.tobytes() == Image.open(tmp_path / "step_0000030.png").convert("RGB").tobytes()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(-1)
    assert sheet(task, tmp_path / "other", 30).tobytes() != again.tobytes()


def test_losses_of_seen_and_unseen_pictures_are_told_alike(
    model: DiffusionModel, images: ImageSet, tmp_path: Path
) -> None:
    """All of them with their condition and without dropout, under the same noise each time."""
    other = replace(images, pixels=255 - images.pixels)
    seen, unseen = (BatchStream(one, B, seed=1) for one in (images, other))
    compared = {"seen_loss": (seen, model.conditioner), "held_out_loss": (unseen, model.conditioner)}
    task = DiffusionTask(model, seen, 1, Request(classes=[0]), compared=compared, compared_count=2 * B - 5)
    task.eval()
    expected = []
    for step in range(2):
        inputs = task.inputs(step)
        inputs["drop"] = torch.zeros(B, dtype=torch.bool)
        expected.append(task(**inputs)["loss"].detach())
    state = torch.get_rng_state()
    told = task.preview(tmp_path, 1)
    assert told["seen_loss"] == pytest.approx(float(torch.cat(expected)[:-5].mean()))
    assert told["held_out_loss"] != pytest.approx(told["seen_loss"], rel=1e-3)
    assert task.preview(tmp_path, 7) == told and torch.equal(torch.get_rng_state(), state)
    assert not any("compared" in name for name, _ in task.named_modules())  # looked at, not trained


def test_a_run_without_conditions_is_previewed_too(
    tiny_model: Callable[..., DiffusionModel], images: ImageSet, tmp_path: Path
) -> None:
    model = tiny_model(conditioner=Unconditional())
    task = DiffusionTask(model, BatchStream(images, B, seed=1), 1, preview_count=5)
    assert sheet(task, tmp_path, 1).width > 8


def test_a_preview_that_cannot_be_written_is_named(model: DiffusionModel, images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("a file where the folder should be")
    task = DiffusionTask(model, BatchStream(images, B, seed=1), 1, Request(classes=[0]))
    with pytest.raises(LabError, match=r"step_0000001\.png: cannot be written"):
        task.preview(tmp_path / "samples", 1)
