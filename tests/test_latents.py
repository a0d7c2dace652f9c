"""A set in latent space: what is cached, how it is scaled, and what batches are made of."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab import latents as module
from lab.autoencoders import Autoencoder, AutoencoderKL, AutoencoderVQ
from lab.data import ImageSet
from lab.errors import LabError
from lab.latents import LatentStream, encode_set, fingerprint, set_moments, take_statistics

SIZE = {"channels": 16, "blocks": 1, "factor": 2}


def make_images(count: int = 12, margin: int = 4) -> ImageSet:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 16 + margin, 16 + margin, 3), dtype=torch.uint8, generator=random)
    return ImageSet("random", pixels, torch.arange(count) % 3, ("a", "b", "c"), 16, (), (), "0" * 16)


@pytest.fixture
def autoencoder() -> AutoencoderKL:
    torch.manual_seed(0)
    made = AutoencoderKL(**SIZE)
    for parameter in made.parameters():  # nothing is zero-initialised any more
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return made.eval()


@torch.no_grad()
def test_the_cache_is_a_fresh_encoding_of_crops_and_mirror_images(autoencoder: AutoencoderKL, tmp_path: Path) -> None:
    images = make_images()
    moments = set_moments(autoencoder, images, 3, tmp_path)
    assert moments.shape == (12, 3, 2, 8, 8, 8) and moments.dtype == torch.float16
    centre = images.view(torch.arange(12))
    torch.testing.assert_close(moments[:, 0, 0].float(), autoencoder.moments(centre), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(moments[:, 0, 1].float(), autoencoder.moments(centre.flip(-1)), rtol=2e-3, atol=2e-3)
    assert not torch.equal(moments[:, 0], moments[:, 1]) and not torch.equal(moments[:, 1], moments[:, 2])
    assert torch.equal(moments, encode_set(autoencoder, images, 3))


def test_it_is_encoded_once_for_each_autoencoder_set_and_number_of_crops(
    autoencoder: AutoencoderKL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, encoded = make_images(), []
    real = module.encode_set
    monkeypatch.setattr(module, "encode_set", lambda *args: encoded.append(1) or real(*args))
    one = set_moments(autoencoder, images, 2, tmp_path)
    assert torch.equal(set_moments(autoencoder, images, 2, tmp_path), one) and len(encoded) == 1
    set_moments(autoencoder, images, 1, tmp_path)
    assert len(encoded) == 2
    next(autoencoder.parameters()).data += 1
    assert not torch.equal(set_moments(autoencoder, images, 2, tmp_path), one) and len(encoded) == 3


def test_a_set_without_a_margin_has_one_crop(autoencoder: AutoencoderKL, tmp_path: Path) -> None:
    assert set_moments(autoencoder, make_images(margin=0), 5, tmp_path).shape[:3] == (12, 1, 2)
    with pytest.raises(LabError, match=r"latents\.crops=0: use at least 1"):
        set_moments(autoencoder, make_images(), 0, tmp_path)


@pytest.mark.parametrize("kind", [AutoencoderKL, AutoencoderVQ])
@torch.no_grad()
def test_scaled_latents_have_unit_variance(kind: Callable[..., Autoencoder], tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = kind(**SIZE)
    for parameter in autoencoder.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    moments = set_moments(autoencoder, make_images(40), 2, tmp_path)
    take_statistics(autoencoder, moments)
    flat = moments.flatten(0, 2).float()
    drawn = autoencoder.latents(flat, torch.randn(len(flat), 4, 8, 8))
    assert drawn.mean(dim=(0, 2, 3)).abs().max() < 0.05
    torch.testing.assert_close(drawn.std(dim=(0, 2, 3)), torch.ones(4), rtol=0, atol=0.05)


def test_statistics_are_those_of_the_posterior_not_of_its_means() -> None:
    """Means all equal, deviation 2: the latents' variance is 4, that of the means 0."""
    autoencoder = AutoencoderKL(**SIZE)
    moments = torch.cat([torch.full((9, 1, 2, 4, 8, 8), 3.0), torch.full((9, 1, 2, 4, 8, 8), 2 * 0.6931472)], dim=3)
    take_statistics(autoencoder, moments)
    torch.testing.assert_close(autoencoder.latent_mean, torch.full((4,), 3.0))
    torch.testing.assert_close(autoencoder.latent_std, torch.full((4,), 2.0))


def test_a_dead_channel_is_named() -> None:
    moments = torch.randn(9, 1, 2, 4, 8, 8)
    moments[:, :, :, 2] = 0.5
    with pytest.raises(LabError, match="channel 2 of the latents does not vary"):
        take_statistics(AutoencoderVQ(**SIZE), moments)


def test_the_fingerprint_is_of_weights_not_of_statistics(autoencoder: AutoencoderKL) -> None:
    before = fingerprint(autoencoder)
    autoencoder.latent_std.fill_(3.0)
    assert fingerprint(autoencoder) == before
    next(autoencoder.parameters()).data[0] += 1e-3
    assert fingerprint(autoencoder) != before


# -- batches -----------------------------------------------------------------------------------------


def stream(count: int = 12, batch_size: int = 6, **options: bool) -> LatentStream:
    images = make_images(count)
    numbered = torch.arange(count * 3 * 2).view(count, 3, 2, 1, 1, 1).expand(-1, -1, -1, 8, 8, 8).half()
    return LatentStream(numbered, images, batch_size, seed=0, **options)


def test_rows_are_views_of_their_indices() -> None:
    batch = stream().batch(3)
    assert batch.images.shape == (6, 8, 8, 8) and batch.images.dtype == torch.float32
    assert torch.equal(batch.images[:, 0, 0, 0].long() // 6, batch.indices)
    assert torch.equal(batch.labels, batch.indices % 3)


def test_crops_and_sides_are_chosen_afresh_and_evenly() -> None:
    views = torch.cat([stream().batch(step).images[:, 0, 0, 0].long() % 6 for step in range(200)])
    assert bool((torch.bincount(views, minlength=6) > 120).all())  # 200 of each expected
    upright = torch.cat([stream(flip=False).batch(step).images[:, 0, 0, 0].long() % 2 for step in range(20)])
    assert int(upright.sum()) == 0


def test_a_batch_depends_on_seed_and_step_alone_and_ranks_share_it() -> None:
    walked = stream()
    for step in range(5):
        walked.batch(step)
    whole = stream().batch(5)
    assert torch.equal(walked.batch(5).images, whole.images)
    parts = [stream().batch(5, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)
