import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lab.data import Folder
from lab.errors import LabError


def folder(root: Path, **options: Any) -> Folder:
    return Folder(str(root), image_size=16, cache_dir=str(root.parent / ".cache"), **options)


def refused(source: Folder, split: str = "train") -> str:
    with pytest.raises(LabError) as caught:
        source.load(split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sub_folders_are_classes(pictures: Path) -> None:
    images = folder(pictures, held_out_fraction=0).load("train")
    assert images.class_names == ("rose", "tulip")
    assert images.labels.tolist() == [0] * 5 + [1] * 3
    assert images.pixels.shape == (8, 18, 18, 3)
    assert images.name == "pictures"
    assert images.captions == images.factors == ()
    roses, tulips = images.files[:5], images.files[5:]
    assert roses == ("rose/1.jpg", "rose/2.png", "rose/3.jpg", "rose/4.jpg", "rose/5.jpg")
    assert sorted(tulips) == ["tulip/1.png", "tulip/2.jpg", "tulip/late/3.jpg"] and images.file(5) == tulips[0]


def test_without_sub_folders_or_by_choice_there_are_no_classes(pictures: Path) -> None:
    for source in (
        folder(pictures / "rose", held_out_fraction=0),
        folder(pictures, classes=False, held_out_fraction=0),
    ):
        images = source.load("train")
        assert images.class_names == ()
        assert (images.labels == -1).all()
    assert len(images) == 8
    assert "no sub-folders to be classes" in refused(folder(pictures / "rose", classes=True))


def test_splits_are_disjoint_complete_and_stable(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for i in range(200):
        Image.new("RGB", (2, 2), (i, 0, 0)).save(tmp_path / "many" / f"{i}.png")

    def reds(split: str) -> set[int]:
        images = folder(tmp_path / "many", held_out_fraction=0.2).load(split)
        return set(images.pixels[:, 0, 0, 0].tolist())

    train, held_out = reds("train"), reds("held_out")
    assert train | held_out == set(range(200))
    assert not train & held_out
    assert 20 < len(held_out) < 60
    for i in range(0, 200, 2):
        (tmp_path / "many" / f"{i}.png").unlink()
    assert reds("held_out") == {red for red in held_out if red % 2}


def test_small_folders_hold_one_out_and_every_class_trains(pictures: Path) -> None:
    source = folder(pictures, held_out_fraction=1e-9)
    assert len(source.load("held_out")) == 1
    assert len(source.load("train")) == 7
    greedy = folder(pictures, held_out_fraction=0.999999)
    assert greedy.load("train").labels.tolist() == [0, 1]
    assert len(greedy.load("held_out")) == 6


def test_a_single_image_is_trained_on_and_nothing_held_out(tmp_path: Path, picture: Image.Image) -> None:
    (tmp_path / "one").mkdir()
    picture.save(tmp_path / "one" / "only.png")
    source = folder(tmp_path / "one")
    assert len(source.load("train")) == 1
    assert "data.held_out_fraction=0.1 holds nothing out" in refused(source, "held_out")
    source = folder(tmp_path / "one", held_out_fraction=0)
    assert "data.held_out_fraction=0 holds nothing out" in refused(source, "held_out")


BAD = {"empty.jpg": b"", "text.png": b"no picture", "notes.txt": b"remember the milk"}


def test_bad_files_are_refused_by_name(pictures: Path) -> None:
    for name, content in BAD.items():
        path = pictures / "rose" / name
        path.write_bytes(content)
        message = refused(folder(pictures, held_out_fraction=0))
        assert str(path) in message
        assert "data.on_bad_file=skip" in message
        path.unlink()


def test_bad_files_are_skipped_with_warnings(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in BAD.items():
        (pictures / "rose" / name).write_bytes(content)
    half = (pictures / "tulip" / "2.jpg").read_bytes()[:300]
    (pictures / "tulip" / "2.jpg").write_bytes(half)
    source = folder(pictures, held_out_fraction=0, on_bad_file="skip")
    for _ in range(2):  # decoded, then from the cache
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            images = source.load("train")
        assert images.labels.tolist() == [0] * 5 + [1] * 2
        assert len(images.pixels) == 7
        assert len(images.files) == 7 and "tulip/2.jpg" not in images.files and images.file(6) == images.files[6]
        assert all(name in caplog.text for name in (*BAD, "2.jpg"))
        assert len(caplog.records) == 4
    assert "empty.jpg" in refused(folder(pictures, held_out_fraction=0))  # what was skipped is not allowed


def test_hidden_files_are_not_looked_at(pictures: Path) -> None:
    (pictures / ".DS_Store").write_bytes(b"x")
    (pictures / "rose" / ".hidden").write_bytes(b"x")
    (pictures / ".git").mkdir()
    (pictures / ".git" / "config").write_bytes(b"x")
    assert len(folder(pictures, held_out_fraction=0).load("train")) == 8
    assert len(folder(pictures, held_out_fraction=0, classes=False).load("train")) == 8


def test_folders_that_cannot_be_used_are_named(pictures: Path, tmp_path: Path) -> None:
    assert "data.root=" in refused(folder(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: no image" in refused(folder(tmp_path / "empty"))
    (pictures / "lily").mkdir()
    assert f"{pictures / 'lily'}: no image" in refused(folder(pictures))
    (pictures / "lily" / "1.jpg").write_bytes(b"")
    refusal = refused(folder(pictures, on_bad_file="skip"))
    assert f"{pictures / 'lily'}: a class with no sound image" in refusal
    assert f"{pictures / 'lily'}: no sound image in its train part" in refused(
        folder(pictures / "lily", on_bad_file="skip")
    )
    (pictures / "lily" / "1.jpg").unlink()
    (pictures / "lily").rmdir()
    (pictures / "loose.jpg").write_bytes(b"")
    assert "loose.jpg: lies beside class folders" in refused(folder(pictures))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 0),
        ("image_size", -1),
        ("held_out_fraction", 1),
        ("held_out_fraction", -0.1),
        ("held_out_fraction", float("nan")),
        ("on_bad_file", "ignore"),
        ("crop_margin", -1),
        ("workers", 0),
        ("workers", -1),
    ],
)
def test_bad_values_are_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(LabError, match=rf"data\.{key}="):
        Folder(str(tmp_path), **{key: value})


def test_a_changed_file_changes_the_fingerprint(pictures: Path) -> None:
    source = folder(pictures, held_out_fraction=0)
    before = source.load("train")
    Image.new("RGB", (8, 8), "red").save(pictures / "rose" / "2.png")
    after = source.load("train")
    assert before.fingerprint != after.fingerprint
    assert torch.equal(before.pixels[0], after.pixels[0])
    assert after.pixels[1].float().mean((0, 1)).tolist() == [255, 0, 0]


def test_a_name_that_is_no_utf8_is_a_name_like_others(pictures: Path) -> None:
    """As old archives have them: Latin-1 in the file system."""
    other = os.fsencode(pictures / "rose") + b"/r\xfcbe.png"
    try:
        with open(other, "wb") as file:
            Image.new("RGB", (20, 20), "red").save(file, "png")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    source = folder(pictures, held_out_fraction=0.3)
    counts = [len(source.load(split)) for split in ("train", "held_out")]  # type: ignore[arg-type]
    assert sum(counts) == 9
