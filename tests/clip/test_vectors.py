from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lab.clip import Clip, clip_vectors, vector_stats
from lab.data import ImageSet
from lab.errors import LabError

MakeSet = Callable[..., ImageSet]


@pytest.fixture
def discs(make_set: MakeSet) -> ImageSet:
    return make_set(["red", "yellow", "blue"] * 50, [0, 1, 2] * 50, ["rose", "iris", "bluebell"])


@pytest.fixture
def encoded(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how many images the model has been asked to encode."""
    counts: list[int] = []
    encode = tiny_clip.encode_images

    def counting(images: Tensor) -> Tensor:
        counts.append(len(images))
        return encode(images)

    monkeypatch.setattr(tiny_clip, "encode_images", counting)
    return counts


def test_each_image_has_two_views_of_unit_norm(tiny_clip: Clip, discs: ImageSet, tmp_path: Path) -> None:
    vectors = clip_vectors(tiny_clip, discs, tmp_path)
    assert vectors.shape == (150, 2, 16) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones(150, 2))
    some = torch.tensor([7, 149])
    torch.testing.assert_close(vectors[some, 0], tiny_clip.encode_images(discs.view(some)))
    torch.testing.assert_close(vectors[some, 1], tiny_clip.encode_images(discs.view(some).flip(-1)))
    assert clip_vectors(tiny_clip, discs, tmp_path, flips=False).shape == (150, 1, 16)


def test_the_second_time_nothing_is_encoded(
    tiny_clip: Clip, discs: ImageSet, tmp_path: Path, encoded: list[int]
) -> None:
    first = clip_vectors(tiny_clip, discs, tmp_path)
    assert sum(encoded) == 300
    assert torch.equal(clip_vectors(tiny_clip, discs, tmp_path), first)
    assert sum(encoded) == 300
    (path,) = (tmp_path / "clip").glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert about == {
        "model": "tiny-clip",
        "fingerprint": tiny_clip.fingerprint,
        "preprocessing": tiny_clip.preprocessing,
        "normalised": "true",
        "image_set": "150-0",
        "size": "32",
        "views": "mirrored",
    }


@pytest.mark.parametrize("change", ["weights", "preprocessing", "images", "size", "truncated", "empty"])
def test_a_cache_that_does_not_fit_is_made_anew(
    tiny_clip: Clip, discs: ImageSet, make_set: MakeSet, tmp_path: Path, encoded: list[int], change: str
) -> None:
    clip_vectors(tiny_clip, discs, tmp_path)
    (path,) = (tmp_path / "clip").glob("*.safetensors")
    if change == "weights":
        next(tiny_clip.model.parameters()).view(-1)[0] += 1
        del tiny_clip.fingerprint
    if change == "preprocessing":
        tiny_clip.preprocess["mean"] = (0.5, 0.5, 0.5)
    if change == "images":
        discs = make_set(["white"] * 150, seed=1)
    if change == "size":
        discs = make_set(["red", "yellow", "blue"] * 50, size=24)  # the centre of the same pictures
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    if change == "empty":
        path.write_bytes(b"")
    before = sum(encoded)
    vectors = clip_vectors(tiny_clip, discs, tmp_path)
    assert sum(encoded) == before + 300
    torch.testing.assert_close(vectors[:2, 0], tiny_clip.encode_images(discs.view(torch.arange(2))))
    assert torch.equal(vectors, clip_vectors(tiny_clip, discs, tmp_path))


def test_a_folder_that_cannot_be_written_is_named(tiny_clip: Clip, discs: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "clip").touch()
    with pytest.raises(LabError, match=str(tmp_path)):
        clip_vectors(tiny_clip, discs, tmp_path)


def test_statistics_standardise_the_vectors(tiny_clip: Clip, discs: ImageSet, tmp_path: Path) -> None:
    vectors = clip_vectors(tiny_clip, discs, tmp_path)
    stats = vector_stats(tiny_clip, discs, vectors)
    standard = (vectors.flatten(0, 1) - stats.mean) / stats.std
    torch.testing.assert_close(standard.mean(dim=0), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(standard.square().mean(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert stats.text_mean.shape == (16,) and stats.std.shape == ()
    assert torch.equal(stats.text_mean, vector_stats(tiny_clip, discs, vectors).text_mean)
    assert 0 < float(stats.text_mean.norm()) <= 1
