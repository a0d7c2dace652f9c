"""The cures of the modality gap, on a CLIP run that was trained for a moment."""

import csv
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lab
from experiments import modality_gap
from experiments.modality_gap import Row, Way, ask, species_of, ways_of
from lab.conditioning import ClipVector
from lab.config import compose
from lab.errors import LabError
from lab.parts import Parts
from lab.render import from_uint8

Command = Callable[..., tuple[int, str]]
SMALL = ("colours=[red,blue]", "species=[3,0]", "count=2", "num_inference_steps=2")


def test_the_command_measures_with_each_cure_when_sampling(
    clip_run: Path, judge_run: Path, run_command: Command, tmp_path: Path, plain_names: None
) -> None:
    asked = (f"runs=[{clip_run}]", f"judge={judge_run}", f"out={tmp_path}", *SMALL)
    code, said = run_command(modality_gap.main, *asked)
    assert code == 0, said
    with (tmp_path / "modality_gap.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["shift_when_sampling"] for row in rows] == ["False", "True", "True"]
    assert [row["neighbours_when_sampling"] for row in rows] == ["0", "0", "4"]
    for row in rows:
        assert float(row["colours"]) in [part / 8 for part in range(9)]  # two species, two colours, two samples
        assert (row["seed"], row["n"]) == ("0", "8") and int(row["of_classes"]) > 0
        assert 0 <= float(row["classes_first"]) <= float(row["classes_five"]) <= 1
    assert all(f"cures: {cure}: " in said for cure in ("none", "shift", "neighbours"))
    folders = [tmp_path / name for name in ("0_plain", "0_shifted", "0_neighbours")]
    kept = [next((folder / "colours").rglob("samples_*.safetensors")) for folder in folders]
    for one, other in combinations([load_file(path)["pixels"].float() for path in kept], 2):
        assert float((one - other).abs().max()) > 1  # the texts were told otherwise
    assert all((folder / "colours.png").is_file() for folder in folders)


def test_colours_species_and_classes_are_counted_against_what_each_was_asked_for(
    clip_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flat pictures, and a judge that takes red ones for class 3 and others for class 0."""
    rgb = {"red": (230, 10, 20), "blue": (20, 30, 230), "yellow": (250, 220, 20), "white": (250, 250, 250)}
    shown = [["red", "red"], ["blue", "yellow"], ["red", "white"], ["white", "blue"]]  # species 3, species 0
    asked: list[Sequence[str]] = []

    def painted(model: object, prompts: Sequence[str], count: int, *rest: object) -> torch.Tensor:
        asked.append(prompts)
        colours = shown if len(prompts) == len(shown) else [["red"] * count] * len(prompts)
        pixels = torch.tensor([[rgb[one] for one in row] for row in colours], dtype=torch.uint8)
        return pixels[:, :, None, None].expand(-1, -1, 16, 16, 3)

    def logits(images: torch.Tensor) -> torch.Tensor:
        red = (images[:, 0] > 0.5) & (images[:, 1] < 0)
        return 10 * torch.eye(len(names))[3 * red[:, 0, 0].long()] - torch.arange(len(names)) / 10

    monkeypatch.setattr(modality_gap, "ask", painted)
    model = lab.load(clip_run)
    assert isinstance(model.conditioner, ClipVector)
    names = model.conditioner.class_names
    cfg = compose("modality_gap", ["colours=[red,blue]", "count=2", "class_count=3"])
    judge: Any = SimpleNamespace(logits=logits)
    row, _ = modality_gap.measure(model, Way("plain", False, 0), cfg, [names[3], names[0]], judge, tmp_path)
    assert [prompt.split()[1] for prompt in asked[0]] == ["red", "blue"] * 2
    assert len(asked[1]) == len(names) and all(name in prompt for name, prompt in zip(names, asked[1], strict=True))
    assert (row.colours, row.blue) == ((1 + 0.5 + 0.5 + 0.5) / 4, 0.5)
    assert row.species == (2 + 3) / 8
    assert row.classes_first == pytest.approx(1 / len(names)) and row.classes_five == pytest.approx(5 / len(names))
    assert (row.n, row.of_classes) == (8, 3 * len(names))


def test_a_run_that_remembers_no_pictures_is_not_asked_by_them(clip_run: Path) -> None:
    conditioner = lab.load(clip_run).conditioner
    assert isinstance(conditioner, ClipVector)
    assert [way.name for way in ways_of(conditioner)] == ["plain", "shifted", "neighbours"]
    conditioner.pictures = conditioner.pictures[:0]
    assert [way.name for way in ways_of(conditioner)] == ["plain", "shifted"]


def test_one_noise_serves_all_prompts(clip_run: Path, tmp_path: Path) -> None:
    model = lab.load(clip_run)
    settings = {"num_inference_steps": 2, "seed": 1, "batch_size": 3}
    made = ask(model, ["a red flower", "a blue flower"], 2, settings, Parts(tmp_path, {}))
    again = model.sample(["a blue flower"], numbers=[0, 1], count=2, output="tensor", **settings)  # type: ignore[arg-type]
    assert isinstance(again, torch.Tensor)
    assert float((from_uint8(made[1]) - again).abs().max()) <= 1 / 255 + 1e-3


def test_cures_are_named() -> None:
    nothing: dict[str, Any] = {
        "seed": 0,
        "n": 1,
        "of_classes": 0,
        "colours": 0.5,
        "blue": None,
        "species": None,
        "classes_first": None,
        "classes_five": None,
    }
    told = ((False, 0), (True, 0), (True, 4))
    named = [Row("run", noise, *how, **nothing).cures for noise in (0.0, 0.5) for how in told]
    assert named == ["none", "shift", "neighbours", "noise", "noise and shift", "noise and neighbours"]


@pytest.fixture
def plain_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in flowers' classes have colours in their names, which only this experiment minds."""
    monkeypatch.setattr(modality_gap, "colours_in", lambda text: set())


def test_species_with_a_colour_in_their_name_are_refused(clip_run: Path) -> None:
    model = lab.load(clip_run)
    model.conditioner.class_names = ("pink primrose", "rose", "blackberry lily", "red ginger")  # type: ignore[assignment]
    assert species_of(model, compose("modality_gap", [])) == ["rose", "blackberry lily"]
    with pytest.raises(LabError, match="species=red ginger: it has a colour in its name"):
        species_of(model, compose("modality_gap", ["species=[rose,3]"]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("runs=null", "runs=[...]: name CLIP runs"),
        ("colours=[]", "colours=[]: name some of"),
        ("colours=[mauve]", "colours=mauve: use some of"),
        ("count=0", "count=0: use at least 1"),
        ("batch_size=-1", "batch_size=-1: use at least 1"),
        ("class_count=-1", "class_count=-1: use at least 0"),
        ("species=[moon]", "moon: no such class"),
    ],
)
def test_mistakes_are_one_line(clip_run: Path, run_command: Command, tmp_path: Path, override: str, words: str) -> None:
    code, said = run_command(modality_gap.main, f"runs=[{clip_run}]", f"out={tmp_path / 'new'}", override)
    assert code == 2 and words in said, said
    assert not (tmp_path / "new").exists()


def test_class_runs_are_refused(class_run: Path, run_command: Command) -> None:
    code, said = run_command(modality_gap.main, f"runs=[{class_run}]")
    assert code == 2 and "it is not conditioned on CLIP's vectors" in said
