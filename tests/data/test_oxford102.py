import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from torchvision.datasets import Flowers102

from lab.data import Oxford102, oxford102
from lab.errors import LabError

REMEDY = r"data\.root \(or FLOWERS102_ROOT\).*data=petals"


class FewFlowers:
    """What torchvision's class is to the lab, on seven pictures of one colour each."""

    classes = Flowers102.classes

    def __init__(self, root: Path, split: str = "train", loader: type[Path] = Path) -> None:
        numbers = {"train": [1, 2], "val": [3], "test": [4, 5, 6, 7]}[split]
        self.items = [(loader(Path(root) / f"image_{i:05d}.jpg"), i * 10) for i in numbers]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Path, int]:
        return self.items[index]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(oxford102, "Flowers102", FewFlowers)
    for i in range(1, 8):
        Image.new("RGB", (30, 20), (i * 30, 0, 0)).save(tmp_path / f"image_{i:05d}.jpg", quality=95)
    return tmp_path


@pytest.fixture
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWERS102_ROOT", raising=False)


def load(root: Path, split: str) -> tuple[list[int], torch.Tensor]:
    source = Oxford102(16, root=str(root), cache_dir=str(root / "datasets"))
    images = source.load(split)
    return images.labels.tolist(), images.pixels


def test_train_is_official_train_and_test_and_val_is_held_out(root: Path) -> None:
    labels, pixels = load(root, "train")
    assert labels == [10, 20, 40, 50, 60, 70]
    assert pixels.shape == (6, 18, 18, 3)
    assert (pixels[:, 9, 9, 0].int() - torch.tensor(labels) * 3).abs().max() <= 3
    assert load(root, "held_out")[0] == [30]


def test_a_damaged_or_missing_file_is_named(root: Path) -> None:
    (root / "image_00004.jpg").write_bytes(b"")
    with pytest.raises(LabError, match=r"image_00004\.jpg: an empty file"):
        load(root, "train")
    (root / "image_00004.jpg").unlink()
    with pytest.raises(LabError, match=r"image_00004\.jpg: no such file"):
        load(root, "train")


def test_the_environment_names_the_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS102_ROOT", str(root))
    assert len(Oxford102(16, cache_dir=str(root / "datasets")).load("train")) == 6


@pytest.mark.usefixtures("nothing_given")
def test_nothing_there_and_no_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: Flowers102) -> None:
        raise URLError("Temporary failure in\nname resolution")

    monkeypatch.setattr(Flowers102, "download", offline)
    with pytest.raises(LabError, match=f"no download.*{REMEDY}") as caught:
        Oxford102(cache_dir=str(tmp_path)).load("train")
    assert str(tmp_path / "oxford102") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_given")
def test_a_given_root_is_never_downloaded_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flowers102, "download", lambda self: pytest.fail("downloaded"))
    given = Oxford102(root=str(tmp_path / "typo"))
    not_allowed = Oxford102(cache_dir=str(tmp_path), download=False)
    for source in (given, not_allowed):
        with pytest.raises(LabError, match=REMEDY):
            source.load("train")
    assert not (tmp_path / "typo").exists()


def test_bad_values_are_refused_by_name() -> None:
    with pytest.raises(LabError, match=r"data\.image_size=0"):
        Oxford102(0)
    with pytest.raises(LabError, match=r"data\.workers=-1"):
        Oxford102(workers=-1)
    with pytest.raises(LabError, match="unknown split 'test'"):
        Oxford102().load("test")


@pytest.mark.real_data
@pytest.mark.skipif("FLOWERS102_ROOT" not in os.environ, reason="FLOWERS102_ROOT is not set")
def test_the_real_set_is_whole(tmp_path: Path) -> None:
    source = Oxford102(16, cache_dir=str(tmp_path))
    train, held_out = source.load("train"), source.load("held_out")
    assert (len(train), len(held_out)) == (7169, 1020)
    assert held_out.labels.bincount().tolist() == [10] * 102
    assert (train.labels.bincount() + 10).min() == 40
    assert (train.labels.bincount() + 10).max() == 258
    assert len(train.class_names) == 102
    assert train.class_names[73] == "rose"
    # Official split by number: 7169 pictures, none of them flat, none twice among the first thousand.
    assert train.pixels.float().flatten(1).std(1).min() > 5
    assert len(torch.unique(train.pixels[:1000].flatten(1), dim=0)) == 1000
