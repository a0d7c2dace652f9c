"""The map as a command, and which CLIP and pictures it is of."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from experiments import clip_map
from experiments.clip_source import clip_for, named_clip, pictures_for
from lab.config import compose
from lab.errors import LabError
from lab.render import read_provenance

Command = Callable[..., tuple[int, str]]


def as_clip_run(run: Path, folder: Path) -> Path:
    """What a run of +experiment=flower_clip leaves, of the CLIP that `run` was trained with."""
    shutil.copytree(run / "clip", folder / "clip")
    cfg = (run / "config.yaml").read_text().replace("task: diffusion", "task: flower_clip")
    (folder / "config.yaml").write_text(cfg)
    return folder


@pytest.fixture(scope="module")
def composed(clip_run: Path) -> DictConfig:
    return compose("clip_map", [f"run={clip_run}", "split=train", "perplexity=5"])


@pytest.fixture
def config(composed: DictConfig) -> DictConfig:
    return composed.copy()


@pytest.mark.slow
def test_the_command_writes_maps_tables_and_page(clip_run: Path, run_command: Command, tmp_path: Path) -> None:
    asked = ("split=train", "count=50", "perplexity=5", "k=3")
    code, said = run_command(clip_map.main, f"run={clip_run}", f"out={tmp_path}", *asked)
    assert code == 0, said
    names = {path.name for path in tmp_path.iterdir() if path.suffix != ".json"}
    maps, way = {"map_as_they_are.png", "map_moved.png"}, {"closing_gap.csv", "closing_gap.mp4"}
    assert names == {"clip_map.csv", "index.html", "points.csv", *maps, *way}
    with (tmp_path / "clip_map.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["pictures"] == "50" and float(row["gap"]) > 0 == float(row["gap_moved"]) and row["gap_by_run"]
    with (tmp_path / "points.csv").open() as file:
        points = list(csv.DictReader(file))
    kinds = [point["kind"] for point in points]
    assert kinds == ["picture"] * 50 + ["name"] * int(row["classes"])
    told = read_provenance(tmp_path / "map_moved.png")
    assert told["split"] == "train" and told["image_set"].startswith("petals ") and len(told["clip_sha256"]) == 16
    page = (tmp_path / "index.html").read_text()
    assert "modality gap" in page and f"run={clip_run}" in page and "Names moved by the difference of means" in page


@pytest.mark.slow
def test_colours_in_place_of_pictures(clip_run: Path, run_command: Command, tmp_path: Path) -> None:
    run, out = as_clip_run(clip_run, tmp_path), tmp_path / "out"
    asked = ("split=train", "count=30", "perplexity=5", "k=3", "marks=colours")
    code, said = run_command(clip_map.main, f"run={run}", f"out={out}", *asked)
    assert code == 0, said
    with (out / "clip_map.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["gap_by_run"] == ""  # a CLIP alone moves nothing
    assert (out / "map_as_they_are.png").is_file()


def test_every_way_to_name_a_clip_finds_the_same(clip_run: Path, config: DictConfig, tmp_path: Path) -> None:
    of_run, shift = clip_for(config)
    assert shift is not None and shift.shape == (of_run.dim,)
    config.run = str(as_clip_run(clip_run, tmp_path))
    found = [clip_for(config)[0], named_clip(str(tmp_path)), named_clip(str(tmp_path / "clip"))]
    assert {clip.fingerprint for clip in found} == {of_run.fingerprint}


def test_pictures_are_drawn_by_seed(config: DictConfig) -> None:
    config.count = 20
    images, chosen, _ = pictures_for(config)
    assert len(images) == 64 and len(set(chosen.tolist())) == 20 and chosen.tolist() == sorted(chosen.tolist())
    assert torch.equal(pictures_for(config)[1], chosen)
    config.seed = 1
    assert not torch.equal(pictures_for(config)[1], chosen)


def test_a_set_without_classes_has_no_map(config: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (16, 16), (number * 80, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    run = OmegaConf.load(Path(config.run) / "config.yaml")
    run.data = {"_target_": "lab.data.Folder", "root": str(tmp_path / "photos"), "image_size": 16}
    run.data.cache_dir = str(tmp_path)
    OmegaConf.save(run, tmp_path / "config.yaml")
    config.run = str(tmp_path)
    with pytest.raises(LabError, match="have no classes, whose names a map shows"):
        pictures_for(config)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("run=null", "run=...: name a folder"),
        ("k=0", "k=0: use at least 1"),
        ("count=0", "count=0: use at least 1"),
        ("perplexity=0", "perplexity=0: use more than 0"),
        ("perplexity=.nan", "perplexity=nan: use more than 0"),
        ("split=val", "split=val: use held_out or train"),
        ("fps=.inf", "fps=inf: use more than 0"),
        ("video=avi", "video=avi: use mp4 or gif"),
        ("marks=dots", "marks=dots: use pictures or colours"),
    ],
)
def test_mistakes_are_found_in_the_configuration_alone(config: DictConfig, override: str, words: str) -> None:
    config.merge_with_dotlist([override])
    with pytest.raises(LabError) as error:
        clip_map.check(config)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("k=64", "k=64: each of 64 pictures has 63 neighbours"),
        ("count=65", "count=65: split=train has 64 pictures"),
        ("perplexity=104", "perplexity=104: use less than the 104 points"),
    ],
)
def test_more_than_the_set_has_is_refused(config: DictConfig, override: str, words: str) -> None:
    config.merge_with_dotlist([override])
    with pytest.raises(LabError) as error:
        pictures_for(config)
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["nowhere", "no/where", "ViT-B-32", "/no/folder"])
def test_a_clip_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(LabError, match=f"clip={name}: there is no such CLIP; use a folder, or MODEL/TAG"):
        named_clip(name)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("counts=3", "did you mean count?"),
        ("clip=ViT-B-32/no_such_tag", "no_such_tag: open_clip knows no such weights"),
        ("run=class", "no CLIP belongs to this run or knows its data; name one"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    class_run: Path, run_command: Command, tmp_path: Path, override: str, words: str
) -> None:
    asked = override.replace("run=class", f"run={class_run}")
    code, said = run_command(clip_map.main, f"run={class_run}", f"out={tmp_path / 'out'}", asked)
    assert code == 2 and words in said, said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "out").exists()
