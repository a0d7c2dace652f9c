"""Training an autoencoder: it learns, and each of its judges says what its formula says."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lab.autoencoders import AutoencoderKL, AutoencoderVQ
from lab.data import BatchStream, ImageSet
from lab.errors import LabError
from lab.networks.discriminator import hinge_loss, posed
from lab.training import AutoencoderTask, ReconstructionLosses, Trainer, TrainingSettings

B = 4
ADVERSARIAL = ReconstructionLosses(perceptual="none", adversarial_weight=0.5, adversarial_start=2)


def make_images(count: int = 16) -> ImageSet:
    """Smooth pictures of two colours each."""
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 3, 2, 2, generator=random)
    pixels = torch.nn.functional.interpolate(corners, size=32, mode="bilinear").permute(0, 2, 3, 1)
    return ImageSet("smooth", (pixels * 255).byte(), torch.zeros(count).long(), ("a",), 32, (), (), "0" * 16)


def make_task(losses: ReconstructionLosses | None = None, kind: str = "kl", **options: object) -> AutoencoderTask:
    torch.manual_seed(0)
    sizes = {"channels": 16, "blocks": 1, "factor": 4}
    autoencoder = AutoencoderKL(**sizes) if kind == "kl" else AutoencoderVQ(**sizes, codebook_size=32)
    for parameter in autoencoder.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)
    images = make_images()
    losses = losses or ReconstructionLosses(perceptual="none")
    return AutoencoderTask(autoencoder, BatchStream(images, B, seed=1), images, 1, losses, **options)  # type: ignore[arg-type]


def settings(**changes: object) -> TrainingSettings:
    options = {"steps": 60, "batch_size": B, "lr": 2e-3, "lr_warmup": 5, "log_every": 0, "preview_every": 0}
    return TrainingSettings(**{**options, "save_every": 0, "ema_decay": 0.9, "precision": "fp32", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_it_learns_to_bring_pictures_back(tmp_path: Path, kind: str) -> None:
    task = make_task(kind=kind)
    before = task.preview(tmp_path, 0)
    trainer = Trainer(task, tmp_path / "run", settings(), seed=0)
    trainer.run()
    task.eval()
    after = task.preview(tmp_path, 60)
    assert after["psnr"] > before["psnr"] + 3
    assert after["ssim"] > before["ssim"]
    assert (tmp_path / "step_0000060.png").is_file()


@pytest.mark.parametrize(("error", "power"), [("l1", 1), ("l2", 2)])
def test_the_loss_is_error_and_penalty(error: str, power: int) -> None:
    task = make_task(ReconstructionLosses(error=error, perceptual="none")).eval()
    given = task.inputs(0)
    made = task.autoencoder.training_pass(given["images"], given["eps"])
    expected = (made.images - given["images"]).abs().pow(power).mean(dim=(1, 2, 3))
    told = task(**given)
    torch.testing.assert_close(told["error"], expected)
    torch.testing.assert_close(told["loss"], expected + made.penalty)


def test_perceptual_distance_is_weighed_in() -> None:
    def distance(one: Tensor, other: Tensor) -> Tensor:
        return (one.mean(dim=(1, 2, 3)) - other.mean(dim=(1, 2, 3))).abs() + 3

    plain, weighed = (make_task(ReconstructionLosses(perceptual_weight=w), perceptual=distance).eval() for w in (0, 2))
    given = plain.inputs(0)
    told = weighed(**given)
    torch.testing.assert_close(told["loss"], plain(**given)["loss"] + 2 * told["perceptual"])


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_decoder_learns_alone_where_latents_stay(tmp_path: Path, kind: str) -> None:
    task = make_task(kind=kind, latents_stay=True)
    before, first = {key: t.clone() for key, t in task.autoencoder.state_dict().items()}, task.preview(tmp_path, 0)
    trainer = Trainer(task, tmp_path / "run", settings(), seed=0)
    trainer.run()
    with trainer.ema.in_place():
        changed = {key for key, t in task.autoencoder.state_dict().items() if not torch.equal(t, before[key])}
    assert changed == {key for key in before if key.startswith("decoder.")}
    task.eval()
    assert task.preview(tmp_path, 60)["psnr"] > first["psnr"] + 2


def test_what_stays_has_no_penalty() -> None:
    given = make_task().inputs(0)
    whole, alone = make_task().eval(), make_task(latents_stay=True).eval()
    told = alone(**given)
    torch.testing.assert_close(told["loss"], told["error"])
    torch.testing.assert_close(told["error"], whole(**given)["error"])  # from latents drawn alike
    assert "kl" not in told and told["loss"].requires_grad


def test_noise_is_the_samples_own_whatever_the_ranks() -> None:
    whole = make_task().inputs(3)
    parts = [make_task().inputs(3, rank, 2) for rank in range(2)]
    for key, value in whole.items():
        assert torch.equal(torch.cat([part[key] for part in parts]), value)
    assert not torch.equal(whole["eps"], make_task().inputs(4)["eps"])


@pytest.mark.parametrize("kind", ["kl", "vq", "adversarial"])
def test_a_resumed_run_is_the_run_in_one_go(tmp_path: Path, kind: str) -> None:
    def run(name: str, *stops: int) -> dict[str, Tensor]:
        for stop in stops:
            task = make_task(ADVERSARIAL) if kind == "adversarial" else make_task(kind=kind)
            trainer = Trainer(task, tmp_path / name, settings(steps=stop, save_every=1), seed=0)
            trainer.run()
        return trainer.task.state_dict() | trainer.ema.averages

    whole, parts = run("whole", 6), run("parts", 3, 6)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize(("count", "shown"), [(5, 5), (10, 8), (40, 24)])
def test_pictures_stand_above_what_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, shown: int
) -> None:
    task, drawn = make_task(), list[Tensor]()
    task.held_out = make_images(count)

    def draw(rows: Tensor, **_: object) -> Image.Image:
        drawn.append(rows)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("lab.there_and_back.grid", draw)
    task.eval().preview(tmp_path, 0)
    assert len(drawn[0]) == 2 * shown
    for start in range(0, 2 * shown, 16):
        width = min(8, shown)
        given, made = drawn[0][start : start + width], drawn[0][start + width : start + 2 * width]
        with torch.no_grad():
            torch.testing.assert_close(made, task.autoencoder.decode(task.autoencoder.encode(given)).clamp(-1, 1))


def test_what_is_the_whole_batchs_is_not_divided() -> None:
    assert make_task().divisible
    assert not make_task(kind="vq").divisible
    assert not make_task(ADVERSARIAL).divisible


# -- the discriminator -------------------------------------------------------------------------------


def test_it_starts_when_it_is_told_to() -> None:
    task = make_task(ADVERSARIAL)
    for step in range(4):
        told = task(**task.inputs(step))
        assert ("discriminator" in told) == (step >= 2)
        told["loss"].mean().backward()
        assert all(p.grad is not None for p in task.parameters())  # as several processes need


def test_its_weight_rises() -> None:
    """It learns from the first step on, and is heeded the more the longer."""
    rising = ReconstructionLosses(perceptual="none", adversarial_weight=0.5, adversarial_start=2, adversarial_warmup=3)
    assert [rising.adversarial_share(step) for step in (1, 2, 3, 4, 5, 99)] == [-1, 0.25, 0.5, 0.75, 1, 1]
    assert [ADVERSARIAL.adversarial_share(step) for step in (0, 1, 2, 3)] == [-1, -1, 1, 1]
    task, at_once = make_task(rising), make_task(ADVERSARIAL)
    given = task.inputs(3)
    half, whole = task(**given), at_once(**at_once.inputs(3))
    heeded = [told["loss"] - told["discriminator"] - told["error"] for told in (half, whole)]
    penalty = task.autoencoder.training_pass(given["images"], given["eps"]).penalty
    torch.testing.assert_close(heeded[0] - penalty, (heeded[1] - penalty) / 2, rtol=1e-3, atol=1e-6)


def as_seen(pictures: Tensor, given: dict[str, Tensor]) -> Tensor:
    """As the discriminator sees them."""
    down, right = given["roll"][0].tolist()
    return posed(pictures, (down, right), int(given["pose"][0]))


def test_it_sees_pictures_rolled_to_every_place_of_its_lattice() -> None:
    task = make_task(ADVERSARIAL)
    rolls = [task.inputs(step)["roll"] for step in range(600)]
    assert all((roll == roll[0]).all() for roll in rolls)
    assert {tuple(roll[0].tolist()) for roll in rolls} == {(down, right) for down in range(8) for right in range(8)}
    assert not make_task().inputs(7)["roll"].any()  # there is none


def test_it_sees_pictures_in_every_pose() -> None:
    task = make_task(ADVERSARIAL)
    poses = [task.inputs(step)["pose"] for step in range(100)]
    assert all(pose.shape == (B,) and (pose == pose[0]).all() for pose in poses)
    assert {int(pose[0]) for pose in poses} == set(range(8))


def test_each_loss_reaches_its_own_network_alone() -> None:
    """The discriminator's gradient is that of the hinge loss, the autoencoder's that of the other terms."""
    task = make_task(ADVERSARIAL)
    assert task.discriminator is not None
    given = task.inputs(2)
    task(**given)["loss"].mean().backward()
    got = [p.grad.clone() for p in task.discriminator.parameters() if p.grad is not None]
    made = task.autoencoder.training_pass(given["images"], given["eps"]).images.detach()
    task.zero_grad()
    real, fake = (task.discriminator(as_seen(pictures, given)) for pictures in (given["images"], made))
    hinge_loss(real, fake).mean().backward()
    for mine, parameter in zip(got, task.discriminator.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-6)


def test_its_judgement_pulls_as_hard_as_the_rest() -> None:
    """Esser et al. 2021, eq. 7: at the decoder's last convolution both gradients have one norm, but for the weight."""
    task = make_task(ADVERSARIAL)
    assert task.discriminator is not None
    given, last = task.inputs(2), task.autoencoder.decoder.last_weight  # type: ignore[union-attr]

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, last, retain_graph=True)[0]

    made = task.autoencoder.training_pass(given["images"], given["eps"])
    error = gradient((made.images - given["images"]).abs().mean())
    judgement = gradient(-task.discriminator(as_seen(made.images, given)).mean())
    together = gradient(task(**given)["loss"].mean())
    scale = 0.5 * error.norm() / (judgement.norm() + 1e-4)
    torch.testing.assert_close(together, error + scale * judgement, rtol=1e-3, atol=1e-6)


def test_it_learns_to_tell_beside_the_autoencoder(tmp_path: Path) -> None:
    task = make_task(ReconstructionLosses(perceptual="none", adversarial_weight=0.1))
    Trainer(task, tmp_path / "run", settings(steps=30), seed=0).run()
    told = task.eval()(**task.inputs(0))
    assert float(told["real"]) > float(told["fake"])


def test_patches_need_room() -> None:
    images = ImageSet("s", torch.zeros(4, 16, 16, 3).byte(), torch.zeros(4).long(), ("a",), 16, (), (), "0" * 16)
    autoencoder = AutoencoderKL(channels=16, blocks=1)
    with pytest.raises(LabError, match=r"adversarial_weight=0.5: its patches need data.image_size of 32 at least"):
        AutoencoderTask(autoencoder, BatchStream(images, 2, 0), images, 0, ADVERSARIAL)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"error": "l3"}, "reconstruction.error=l3: use one of l1, l2"),
        ({"perceptual": "lpips"}, "reconstruction.perceptual=lpips: use one of none, flower_clip, vgg"),
        ({"perceptual_weight": -1.0}, "reconstruction.perceptual_weight=-1.0: use 0 or more"),
        ({"adversarial_start": -5}, "reconstruction.adversarial_start=-5: use 0 or more"),
    ],
)
def test_values_that_cannot_be_are_named(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(LabError, match=words):
        ReconstructionLosses(**wrong)  # type: ignore[arg-type]
