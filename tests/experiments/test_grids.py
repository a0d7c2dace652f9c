"""Grids of classes and of prompts: what is counted on them, and the commands."""

import csv
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import pytest
import torch
from omegaconf import OmegaConf

import lab
from experiments import class_grid, text_grid
from experiments.developing import develop
from experiments.text_grid import PROMPTS, agreement, prompts_of
from lab import LabError
from lab.clip.captions import class_prompts
from lab.clip.retrieval import phrase_vectors
from lab.evaluators import clip_of
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import from_uint8, to_uint8

SAMPLING = {"num_inference_steps": 3, "seed": 0}
Command = Callable[..., tuple[int, str]]


def test_stages_are_predictions_and_end_with_the_samples(model: DiffusionModel, tmp_path: Path) -> None:
    settings = {"num_inference_steps": 5, "guidance_scale": 2.0, "batch_size": 2}
    stages = develop(model, model.condition(classes=[0, 1, 2]), [4, 5, 6], settings, Parts(tmp_path, {}))
    assert stages.shape == (6, 3, 8, 8, 3) and stages.dtype == torch.uint8
    alone = model.sample(classes=[0, 1, 2], numbers=[4, 5, 6], output="tensor", **settings)  # type: ignore[arg-type]
    assert isinstance(alone, torch.Tensor)
    torch.testing.assert_close(from_uint8(stages[-1]), alone, atol=1 / 255 + 1e-5, rtol=0)
    torch.testing.assert_close(stages[-2], stages[-1], atol=1, rtol=0)  # DDIM's last prediction is the sample


def test_agreement_is_the_share_of_the_colour_asked_for() -> None:
    red, yellow = torch.tensor([230, 10, 20]), torch.tensor([250, 220, 20])
    pixels = torch.stack([red, yellow, red, red]).to(torch.uint8)[:, None, None].expand(4, 16, 16, 3)
    assert agreement(["a red flower", "a rose", "a yellow flower"], torch.stack([pixels] * 3)) == [0.75, None, 0.25]


def test_prompts_come_from_the_list_or_the_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a red rose\n\n  a daisy \n")
    cfg = OmegaConf.create({"prompts": None, "prompts_file": str(tmp_path / "p.txt")})
    assert prompts_of(cfg) == ["a red rose", "a daisy"]
    assert prompts_of(OmegaConf.create({"prompts": None, "prompts_file": None})) == list(PROMPTS)
    with pytest.raises(LabError, match="given together"):
        prompts_of(OmegaConf.create({"prompts": ["a"], "prompts_file": "b"}))


def test_the_class_grid_names_every_class(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    code, said = run_command(class_grid.main, f"run={class_run}", f"out={tmp_path}")
    assert code == 0, said
    with (tmp_path / "class_grid.csv").open() as file:
        names = [row["class"] for row in csv.DictReader(file)]
    assert len(names) == len(set(names)) >= 24
    page = (tmp_path / "index.html").read_text()
    assert f"{len(names)} classes, 1 sample of each" in page
    assert imageio.imread(tmp_path / "class_grid.mp4", index=None).shape[0] == 4  # three evaluations and the samples


def test_the_class_grid_tells_what_a_judge_makes_of_it(
    class_run: Path, judge_run: Path, run_command: Command, tmp_path: Path
) -> None:
    asked = ("classes=[3,0]", "count=2", f"judge={judge_run}")
    code, said = run_command(class_grid.main, f"run={class_run}", f"out={tmp_path}", *asked)
    assert code == 0, said
    with (tmp_path / "class_grid.csv").open() as file:
        rows = list(csv.DictReader(file))
    first, five = ([int(row[f"{place} by judge"]) for row in rows] for place in ("first", "among five"))
    assert len(rows) == 4 and all(one <= other for one, other in zip(first, five, strict=True))
    assert f"classes first for {sum(first) / 4:.0%} of the samples, and among five for {sum(five) / 4:.0%}" in said


def test_the_class_grid_tells_what_the_runs_clip_makes_of_it(
    clip_run: Path, run_command: Command, tmp_path: Path
) -> None:
    code, said = run_command(class_grid.main, f"run={clip_run}", f"out={tmp_path}", "classes=[3,0]", "count=4")
    assert code == 0, said
    with (tmp_path / "class_grid.csv").open() as file:
        rows = list(csv.DictReader(file))
    model = lab.load(clip_run)
    clip, names = clip_of(model, clip_run), model.conditioner.class_names
    assert clip is not None and isinstance(names, tuple)
    samples = model.sample(classes=[3, 0], count=4, output="tensor", **SAMPLING)  # type: ignore[arg-type]
    assert isinstance(samples, torch.Tensor)
    vectors = clip.encode_images(from_uint8(torch.from_numpy(to_uint8(samples))))
    nearest = (vectors @ phrase_vectors(clip, [class_prompts(name) for name in names]).T).argsort(descending=True)
    asked = torch.tensor([3] * 4 + [0] * 4)[:, None]
    assert [int(row["first by CLIP"]) for row in rows] == (nearest[:, :1] == asked).any(dim=1).int().tolist()
    assert [int(row["among five by CLIP"]) for row in rows] == (nearest[:, :5] == asked).any(dim=1).int().tolist()


def test_among_five_is_told_of_more_than_five_classes_alone(
    class_run: Path, judge_run: Path, run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_grid, "AMONG", 100)
    code, said = run_command(
        class_grid.main, f"run={class_run}", f"out={tmp_path}", "classes=[0]", f"judge={judge_run}"
    )
    assert code == 0 and "classes first for" in said and "among five for" not in said.split("classes first for")[1]
    assert (tmp_path / "class_grid.csv").read_text().splitlines()[0] == "class,first by judge"


def test_the_text_grid_measures_colours(
    clip_run: Path, run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_grid, "Similarity", lambda clip, phrases: lambda images, which: which.float())
    asked = ("prompts=[a red flower, a daisy]", "count=2", "video=gif")
    code, said = run_command(text_grid.main, f"run={clip_run}", f"out={tmp_path}", *asked)
    assert code == 0, said
    with (tmp_path / "text_grid.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == ["a red flower", "a daisy"]
    assert rows[0]["colour_agreement"] in ("0.0", "0.5", "1.0") and rows[1]["colour_agreement"] == ""
    assert [float(row["clip_similarity"]) for row in rows] == [0.0, 1.0]  # each prompt's own samples
    assert (tmp_path / "text_grid.png").is_file() and (tmp_path / "text_grid.gif").is_file()


@pytest.mark.parametrize(
    ("command", "override", "words"),
    [
        (class_grid, "count=0", "count=0: use at least 1"),
        (class_grid, "columns=0", "columns=0: use at least 1"),
        (class_grid, "classes=[moon]", "classes=moon: no such class"),
        (class_grid, "classes=[]", "classes=[]: name at least one"),
        (class_grid, "video=mkv", "video=mkv: use mp4 or gif"),
        (text_grid, "seed=0", "it takes no prompts; train one that does"),
        (text_grid, "prompts=[]", "prompts: name at least one prompt"),
        (text_grid, "prompts_file=none.txt", "prompts_file=none.txt: cannot be read"),
    ],
)
def test_mistakes_are_one_line(
    class_run: Path, run_command: Command, tmp_path: Path, command: object, override: str, words: str
) -> None:
    code, said = run_command(command.main, f"run={class_run}", f"out={tmp_path / 'out'}", override)  # type: ignore[attr-defined]
    assert code == 2 and words in said, said
    assert not (tmp_path / "out").exists()
