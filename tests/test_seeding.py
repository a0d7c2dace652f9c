"""Seeds: known values, computed here from the definition, and independence of everything but the path."""

import hashlib

import numpy as np
import pytest
import torch

from lab import seeding


def expected(text: str) -> int:
    """The definition: the first 8 bytes of SHA-256, little-endian, without the lowest bit."""
    digest = hashlib.sha256(text.encode()).digest()
    return sum(byte << 8 * place for place, byte in enumerate(digest[:8])) // 2


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((0,), "int:0"),
        ((0, "noise", 7), "int:0/str:noise/int:7"),
        ((-3, "order", 0), "int:-3/str:order/int:0"),
        ((2**70, "Ü"), "int:1180591620717411303424/str:Ü"),
    ],
)
def test_known_values(path: tuple[int | str, ...], text: str) -> None:
    seed, *rest = path
    assert isinstance(seed, int)
    assert seeding.derive(seed, *rest) == expected(text)
    assert 0 <= seeding.derive(seed, *rest) < 2**63


def test_numpys_integers_are_integers() -> None:
    assert seeding.derive(np.int64(3), "noise", np.uint8(7)) == seeding.derive(3, "noise", 7)
    with pytest.raises(TypeError):
        seeding.derive(1.5)  # type: ignore[arg-type]


def test_every_part_of_the_path_counts() -> None:
    paths: list[tuple[int, tuple[int | str, ...]]] = [
        (0, ()), (1, ()), (0, (1,)), (0, ("1",)), (1, (0,)), (0, ("noise",)), (0, ("order",)),
        (0, ("noise", 1)), (0, (1, "noise")), (0, ("noise", 11)), (0, ("noise", 1, 1)), (0, ("noise1",)),
    ]  # fmt: skip
    assert len({seeding.derive(seed, *path) for seed, path in paths}) == len(paths)


def test_many_steps_have_seeds_of_their_own() -> None:
    assert len({seeding.derive(0, "time", step) for step in range(20_000)}) == 20_000


def test_a_generator_is_fresh_each_time() -> None:
    first = seeding.generator(0, "dropout", 4)
    draws = torch.rand(8, generator=first)
    torch.rand(8, generator=first)
    assert torch.equal(draws, torch.rand(8, generator=seeding.generator(0, "dropout", 4)))
    assert first.initial_seed() == seeding.derive(0, "dropout", 4)
    assert first.device == torch.device("cpu")


def test_generators_neither_read_nor_move_the_global_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = seeding.noise((3, 4, 4), 0, [0])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(one, seeding.noise((3, 4, 4), 0, [0]))


def test_generators_of_neighbouring_places_differ() -> None:
    places: list[tuple[int, tuple[int | str, ...]]] = [
        (0, ("a", 0)),
        (0, ("a", 1)),
        (0, ("b", 0)),
        (1, ("a", 0)),
    ]
    draws = [torch.randn(10_000, generator=seeding.generator(seed, *path)) for seed, path in places]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(places))
    assert correlation.abs().max() < 0.05  # 5 sigma of independent draws


def test_noise_is_a_row_an_index_whatever_the_batch() -> None:
    whole = seeding.noise((3, 8, 8), 0, range(5))
    assert (whole.shape, whole.dtype) == ((5, 3, 8, 8), torch.float32)
    for index in range(5):
        assert torch.equal(seeding.noise((3, 8, 8), 0, [index])[0], whole[index])
    assert torch.equal(seeding.noise((3, 8, 8), 0, [4, 1, 1]), whole[[4, 1, 1]])
    assert torch.equal(torch.cat([seeding.noise((3, 8, 8), 0, [0, 1]), seeding.noise((3, 8, 8), 0, [2, 3, 4])]), whole)


def test_noise_is_that_of_its_generator() -> None:
    expected_row = torch.randn(3, 4, 4, generator=seeding.generator(9, "noise", 2))
    assert torch.equal(seeding.noise((3, 4, 4), 9, [2])[0], expected_row)


def test_noise_differs_by_index_seed_and_stream() -> None:
    rows = [
        seeding.noise((3, 8, 8), 0, [0]),
        seeding.noise((3, 8, 8), 0, [1]),
        seeding.noise((3, 8, 8), 1, [0]),
        seeding.noise((3, 8, 8), 0, [0], stream="preview"),
    ]
    for index, row in enumerate(rows):
        assert not any(torch.equal(row, other) for other in rows[:index])


def test_noise_is_a_unit_gaussian() -> None:
    drawn = seeding.noise((4, 16, 16), 0, range(64))  # 65536 numbers
    assert abs(drawn.mean().item()) < 0.02
    assert abs(drawn.std().item() - 1.0) < 0.02
    assert abs((drawn.abs() > 1.96).float().mean().item() - 0.05) < 0.005
    assert drawn.flatten(1).mean(1).std().item() < 2.0 / 32.0  # no sample has a mean of its own
