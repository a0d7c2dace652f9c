from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from omegaconf import OmegaConf

from experiments import quickstart
from experiments.quickstart import PROMPTS, prompt_sheet
from lab.model import DiffusionModel
from lab.render import read_provenance
from lab.sampling import SamplingDefaults

Command = Callable[..., tuple[int, str]]


class Painter:
    """Stands in for a model: paints the colour asked for, or always green."""

    sampling = SamplingDefaults()
    colours: ClassVar = {
        "red": (0.8, 0.0, 0.0),
        "orange": (1.0, 0.55, 0.0),
        "yellow": (1.0, 0.9, 0.0),
        "green": (0.2, 0.6, 0.2),
        "blue": (0.25, 0.41, 0.88),
        "purple": (0.5, 0.0, 0.6),
        "pink": (1.0, 0.5, 0.7),
        "white": (1.0, 1.0, 1.0),
    }

    def __init__(self, listens: bool) -> None:
        self.listens = listens

    def facts_of(self, asked: Mapping[str, object]) -> dict[str, object]:
        return {"run": "painter", **asked}

    def sample(self, prompts: list[str], count: int, output: str) -> torch.Tensor:
        names = [PROMPTS[prompt] if self.listens else "green" for prompt in prompts for _ in range(count)]
        fill = torch.tensor([self.colours[name] for name in names])[:, :, None, None]
        images = torch.full((len(names), 3, 32, 32), 0.2)
        images[:, :, 6:26, 6:26] = fill
        return images * 2 - 1


@pytest.mark.parametrize(("listens", "hits"), [(True, 64), (False, 8)])
def test_the_prompt_sheet_counts_the_colours_asked_for(listens: bool, hits: int, tmp_path: Path) -> None:
    model: DiffusionModel = Painter(listens)  # type: ignore[assignment]
    section = prompt_sheet(model, tmp_path / "prompts.png")
    assert f" {hits} of 64 flowers" in section.text
    assert read_provenance(tmp_path / "prompts.png")["run"] == "painter"


def test_a_mistyped_key_ends_in_one_line(run_command: Command) -> None:
    told = "error: training.stpes: no such key; did you mean training.steps?\n"
    assert run_command(quickstart.main, "training.stpes=3") == (2, told)


def test_its_settings_can_be_printed(
    run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(quickstart.main, "--cfg", "job", "training.steps=7")[0] == 0
    told = OmegaConf.create(capsys.readouterr().out)
    assert (told.name, told.training.steps, told.data["_target_"]) == ("quickstart", 7, "lab.data.Petals")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_tiny_run_ends_in_a_page(run_command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ["data.size=128", "data.held_out_size=64", "clip_training.steps=2", "training.steps=4"]
    small = ["training.log_every=2", "sampling.num_inference_steps=2", "model.channels=16", "model.head_dim=16"]
    code, said = run_command(quickstart.main, *tiny, *small)
    assert code == 0, said
    page = (tmp_path / "results/quickstart/index.html").read_text()
    assert page.count("data:image/png;base64") == 3
    assert all(prompt in page for prompt in PROMPTS)


def test_a_run_with_another_ones_clip_tells_its_own_time_alone(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,epoch,images_per_second,seconds\n20,1.5,100,90\n")
    assert (
        quickstart.training_section(tmp_path).text == "20 steps, 100 images/s at the end, 1.5 epochs, in 1.5 minutes."
    )
    (tmp_path / "clip_training").mkdir()
    (tmp_path / "clip_training" / "log.csv").write_text("step,seconds\n5,60\n")
    assert quickstart.training_section(tmp_path).text.endswith("in 1.5 minutes, after 1.0 minutes for the CLIP.")
