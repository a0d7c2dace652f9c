"""The codebook: nearest entries, straight-through gradients, revival, and what is reported of its use."""

import pytest
import torch

from lab.autoencoders import AutoencoderVQ
from lab.autoencoders.vq import Codebook
from lab.errors import LabError


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_each_place_becomes_its_nearest_entry() -> None:
    codebook, z = Codebook(20, 3), latents(2, 3, 4, 5)
    chosen = codebook.choose(z)
    snapped = codebook.look_up(chosen)
    assert chosen.shape == (2, 4, 5) and snapped.shape == z.shape
    distances = (z[:, None] - codebook.entries[None, :, :, None, None]).norm(dim=2)  # (B, K, h, w)
    torch.testing.assert_close((z - snapped).norm(dim=1), distances.min(dim=1).values)
    torch.testing.assert_close(codebook(z), snapped)


def test_gradients_pass_straight_through() -> None:
    codebook, z = Codebook(20, 3), latents(2, 3, 4, 5).requires_grad_()
    pull = latents(2, 3, 4, 5, seed=1)
    (codebook(z) * pull).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, pull)
    assert codebook.entries.grad is None


def test_losses_pull_entries_to_latents_and_latents_to_entries() -> None:
    """van den Oord et al. 2017, eq. 3: the codebook's loss moves entries alone, commitment latents alone."""
    for commitment in (0.0, 0.5):
        torch.manual_seed(0)
        autoencoder = AutoencoderVQ(channels=16, blocks=1, codebook_size=8, commitment=commitment)
        made = autoencoder.training_pass(latents(2, 3, 16, 16).clamp(-1, 1), torch.zeros(2, 4, 4, 4))
        made.penalty.sum().backward()
        entries = autoencoder.codebook.entries.grad
        encoder = [p.grad for p in autoencoder.encoder.parameters()]
        assert entries is not None and float(entries.abs().sum()) > 0
        moved = sum(float(grad.abs().sum()) for grad in encoder if grad is not None)
        assert (moved > 0) == (commitment > 0)
        expected = made.facts["codebook"] * (1 + commitment)
        torch.testing.assert_close(made.penalty, expected)


def test_unused_entries_start_anew_where_latents_are() -> None:
    torch.manual_seed(0)
    codebook, z = Codebook(16, 3), 10 + latents(2, 3, 8, 8)
    codebook.usage.fill_(1.0)
    codebook.usage[[2, 7]] = 0.0
    before = codebook.entries.detach().clone()
    assert int(codebook.revive(z)) == 2
    alive = [k for k in range(16) if k not in (2, 7)]
    assert torch.equal(codebook.entries[alive], before[alive])
    rows = z.permute(0, 2, 3, 1).flatten(0, 2)
    for k in (2, 7):
        assert bool((rows == codebook.entries[k]).all(dim=1).any())
    assert float(codebook.usage.min()) == 1.0
    assert int(codebook.revive(z)) == 0


def test_usage_follows_what_is_chosen_and_dead_entries_come_back() -> None:
    torch.manual_seed(0)
    codebook = Codebook(4, 2)
    codebook.usage.fill_(1.0)
    with torch.no_grad():
        codebook.entries.copy_(torch.tensor([[0.0, 0], [1, 0], [0, 1], [50, 50]]))  # nothing is ever near the last
    z = torch.rand(2, 2, 8, 8)
    for _ in range(1000):
        codebook.count(codebook.choose(z))
    assert float(codebook.usage[3]) < codebook.DEAD < float(codebook.usage[:3].min())
    assert float(codebook.usage.sum()) == pytest.approx(4, rel=1e-3)
    assert int(codebook.revive(z)) == 1
    assert 3 in codebook.choose(z)


def test_perplexity_counts_entries_in_even_use() -> None:
    codebook = Codebook(8, 2)
    assert float(codebook.count(torch.tensor([0, 1, 2, 3] * 5))) == pytest.approx(4)
    assert float(codebook.count(torch.tensor([6] * 5))) == pytest.approx(1)


def test_looking_at_pictures_changes_nothing() -> None:
    autoencoder = AutoencoderVQ(channels=16, blocks=1, codebook_size=8)
    images, eps = torch.rand(2, 3, 16, 16), torch.zeros(2, 4, 4, 4)
    autoencoder.training_pass(images, eps)
    before = {key: value.clone() for key, value in autoencoder.state_dict().items()}
    autoencoder.eval()
    autoencoder.decode(autoencoder.encode(images))
    autoencoder.training_pass(images, eps)
    assert all(torch.equal(value, before[key]) for key, value in autoencoder.state_dict().items())


def test_the_first_batch_fills_the_codebook() -> None:
    torch.manual_seed(0)
    autoencoder = AutoencoderVQ(channels=16, blocks=1, codebook_size=8)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        z = autoencoder.moments(images).permute(0, 2, 3, 1).flatten(0, 2)
    assert int(autoencoder.training_pass(images, torch.zeros(2, 4, 4, 4)).facts["revived"]) == 8
    assert all(bool(torch.isclose(z, entry).all(dim=1).any()) for entry in autoencoder.codebook.entries)


def test_nearest_is_nearest_under_autocast_too() -> None:
    """bf16 has 8 bits: entries a hundredth apart would be confused."""
    codebook = Codebook(200, 1)
    with torch.no_grad():
        codebook.entries.copy_(torch.linspace(1, 3, 200)[:, None])
    z = codebook.entries.detach()[torch.arange(200)].view(1, 1, 10, 20) + 0.002
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codebook.choose(z).flatten(), torch.arange(200))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"codebook_size": 0}, r"autoencoder\.codebook_size=0: use at least 1"),
        ({"codebook_weight": -1.0}, r"autoencoder\.codebook_weight=-1.0: use at least 0"),
        ({"commitment": -0.1}, r"autoencoder\.commitment=-0.1: use 0 or more"),
    ],
)
def test_values_that_cannot_be_are_named(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(LabError, match=words):
        AutoencoderVQ(channels=16, **wrong)  # type: ignore[arg-type]
