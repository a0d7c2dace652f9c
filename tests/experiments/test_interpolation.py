"""Both ways end where plain samples are, and change as evenly as they are told to; and the command."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from experiments import interpolation
from experiments.between import CONDITION, NOISE, Ways, measure, mixed, moved, pace, start_noise, walk
from experiments.between_report import table_of
from experiments.subjects import ask
from lab.autoencoders import Identity
from lab.conditioning import Condition
from lab.conditioning.base import Unconditional
from lab.config import compose
from lab.diffusion import slerp
from lab.errors import LabError
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import read_provenance

Command = Callable[..., tuple[int, str]]
SETTINGS = {"num_inference_steps": 4, "sampler": "ddim", "guidance_scale": 2.0, "seed": 0, "batch_size": 7}
SMALL = ("points=3", "count=2", "num_inference_steps=2")
KEPT = 1 / 255 + 1e-3  # pictures are kept in bytes


def walked(model: DiffusionModel, folder: Path, points: int = 3, **more: Any) -> Ways:
    ends = ask(model, ["rose", "tulip"], None).condition if model.conditioner.dim else model.condition()
    return walk(model, ends, (0, 5), points, 2, {**SETTINGS, **more}, Parts(folder, more))


def plain(model: DiffusionModel, seed: int = 0, **asked: Any) -> Tensor:
    images = model.sample(**asked, count=2, numbers=[0, 1], output="tensor", **{**SETTINGS, "seed": seed})
    assert isinstance(images, Tensor)
    return images


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


class Halved(Identity):
    """Latents of half the sides and 12 channels."""

    latent_channels, factor, bounded = 12, 2, False

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.pixel_shuffle(latents / 2, 2)


@pytest.mark.parametrize("autoencoder", [Identity(), Halved()], ids=["pixels", "latents"])
def test_the_conditions_way_ends_at_both_classes(
    tiny_model: Callable[..., DiffusionModel], tmp_path: Path, autoencoder: Identity
) -> None:
    model = tiny_model(autoencoder=autoencoder)
    way = walked(model, tmp_path).images[CONDITION]
    assert way.shape == (3, 2, 3, model.image_size, model.image_size)
    ends = [plain(model, classes=[name]) for name in ("rose", "tulip")]
    assert apart(ends[0], ends[1]) > 0.1
    assert apart(way[0], ends[0]) <= KEPT and apart(way[2], ends[1]) <= KEPT
    both = model.condition(classes=["rose", "tulip"]).vector
    assert apart(way[1], plain(model, condition=Condition(both.mean(dim=0, keepdim=True)))) <= KEPT


def test_the_noises_way_ends_at_both_seeds(model: DiffusionModel, tmp_path: Path) -> None:
    way = walked(model, tmp_path).images[NOISE]
    ends = [plain(model, seed, classes=["rose"]) for seed in (0, 5)]
    assert apart(ends[0], ends[1]) > 0.1
    assert apart(way[0], ends[0]) <= KEPT and apart(way[2], ends[1]) <= KEPT
    middle = slerp(*(start_noise(model, seed, 2) for seed in (0, 5)), 0.5)
    assert apart(way[1], plain(model, classes=["rose"], latents=middle)) <= KEPT


def test_without_a_condition_the_noise_alone_moves(tiny_model: Callable[..., DiffusionModel], tmp_path: Path) -> None:
    model = tiny_model(conditioner=Unconditional())
    images = walked(model, tmp_path).images
    assert list(images) == [NOISE]
    assert apart(images[NOISE][2], plain(model, 5)) <= KEPT


def test_the_batch_size_changes_nothing_and_pieces_are_read_again(
    model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided = walked(model, tmp_path / "a")
    whole = walked(model, tmp_path / "b", batch_size=100)
    assert all(apart(divided.images[way], whole.images[way]) <= KEPT for way in (CONDITION, NOISE))
    monkeypatch.setattr(type(model), "sample", lambda *_, **__: pytest.fail("computed again"))
    again = walked(model, tmp_path / "a")
    assert all(torch.equal(again.images[way], divided.images[way]) for way in (CONDITION, NOISE))


def test_vectors_and_tokens_are_mixed_row_by_row() -> None:
    ends = Condition(torch.tensor([[0.0, 2.0], [4.0, 0.0]]), torch.tensor([[[1.0]], [[3.0]]]))
    between = mixed(ends, torch.tensor([0.0, 0.25, 1.0]))
    assert between.vector.tolist() == [[0, 2], [1, 1.5], [4, 0]]
    assert between.tokens is not None and between.tokens.flatten().tolist() == [1, 1.5, 3]


def test_distances_are_means_over_noises() -> None:
    images = torch.zeros(3, 2, 3, 4, 4)
    images[1, 0], images[2] = 0.4, 0.4
    assert math.isnan(moved(images)[0]) and moved(images)[1:] == pytest.approx([0.2, 0.2])
    measured = measure(Ways([0.0, 0.5, 1.0], {NOISE: images}), {})
    assert list(measured) == ["distance"] and list(measured["distance"]) == [NOISE]
    first, *_ = table = table_of(Ways([0.0, 0.5, 1.0], {NOISE: images}), measured)
    assert first == {"part of the way": 0, "noise: step": None}
    assert [row["noise: step"] for row in table[1:]] == pytest.approx([0.2, 0.2])


def test_scores_are_taken_of_either_end() -> None:
    images = torch.tensor([0.2, 0.6])[:, None, None, None, None].expand(2, 3, 3, 4, 4)
    score = {"confidence": lambda some, which: some.mean(dim=(1, 2, 3)) * (which + 1)}
    measured = measure(Ways([0.0, 1.0], {CONDITION: images}), score)
    assert measured["confidence_first"][CONDITION] == pytest.approx([0.2, 0.6])
    assert measured["confidence_second"][CONDITION] == pytest.approx([0.4, 1.2])


def test_the_pace_tells_where_change_is_greatest() -> None:
    weights = [0.0, 0.25, 0.5, 0.75, 1.0]
    even = pace(weights, [math.nan, 2, 2, 2, 2])
    assert even is not None and (even.ratio, even.quarter, even.three_quarters) == pytest.approx((1, 0.25, 0.75))
    sudden = pace(weights, [math.nan, 0, 0, 4, 0])
    assert sudden is not None and (sudden.fastest, sudden.ratio) == (0.625, 4)
    assert (sudden.quarter, sudden.three_quarters) == pytest.approx((0.5625, 0.6875))
    assert pace(weights, [math.nan, 0, 0, 0, 0]) is None


def test_the_command_writes_video_stills_curves_table_and_page(
    class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    code, said = run_command(interpolation.main, f"run={class_run}", f"out={tmp_path}", *SMALL)
    assert code == 0, said
    assert "similarity is left out: no CLIP knows this run's data" in said
    names = {path.name for path in tmp_path.iterdir() if path.suffix != ".json"}
    assert names == {"curves.png", "index.html", "interpolation.csv", "interpolation.mp4", "parts", "stills.png"}
    with (tmp_path / "interpolation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["weight"] for row in rows] == ["0.0", "0.5", "1.0"]
    assert list(rows[0]) == ["weight", "condition_distance", "noise_distance"]
    assert imageio.imread(tmp_path / "interpolation.mp4", index=None).shape[0] == 3
    for name in ("interpolation.mp4", "stills.png"):
        told = read_provenance(tmp_path / name)
        assert (told["seed"], told["other_seed"], len(told["subjects"])) == (0, 1, 2) and "weights_sha256" in told
    page = (tmp_path / "index.html").read_text()
    assert "0.50 of the way" in page and f"run={class_run}" in page


def test_a_judge_tells_how_sure_it_is_of_either_end(
    class_run: Path, judge_run: Path, run_command: Command, tmp_path: Path
) -> None:
    code, said = run_command(interpolation.main, f"run={class_run}", f"out={tmp_path}", f"judge={judge_run}", *SMALL)
    assert code == 0, said
    with (tmp_path / "interpolation.csv").open() as file:
        rows = list(csv.DictReader(file))
    for way in (CONDITION, NOISE):
        pairs = [(float(row[f"{way}_confidence_first"]), float(row[f"{way}_confidence_second"])) for row in rows]
        assert all(first > 0 and second > 0 and first + second <= 1 for first, second in pairs)
    assert "confidence in first" in (tmp_path / "index.html").read_text()


def test_prompts_are_compared_with_what_a_clip_sees(clip_run: Path, run_command: Command, tmp_path: Path) -> None:
    asked = ("prompts=[a red flower, a blue flower]", "video=gif", "sampler=null", "guidance_interval=null")
    asked += ("points=2", "count=1")
    code, said = run_command(interpolation.main, f"run={clip_run}", f"out={tmp_path}", "num_inference_steps=2", *asked)
    assert code == 0, said
    assert (tmp_path / "interpolation.gif").is_file()
    with (tmp_path / "interpolation.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("similarity_first", "similarity_second"):
        # Both ways begin with the same pictures.
        assert rows[0][f"condition_{name}"] == rows[0][f"noise_{name}"]
        assert -1 <= float(rows[1][f"condition_{name}"]) <= 1


@pytest.fixture(scope="module")
def composed(class_run: Path) -> DictConfig:
    return compose("interpolation", [f"run={class_run}"])


@pytest.fixture
def config(composed: DictConfig) -> DictConfig:
    return composed.copy()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("run=null", "run=...: name a folder"),
        ("points=1", "points=1: use at least 2"),
        ("count=0", "count=0: use at least 1"),
        ("batch_size=0", "batch_size=0: use at least 1"),
        ("num_inference_steps=0", "num_inference_steps=0: use at least 1"),
        ("other_seed=0", "other_seed=0: the noise goes there from seed=0"),
        ("classes=[]", "classes=[]: name two"),
        ("classes=[0,1,2]", "classes=[0, 1, 2]: name two"),
        ("classes=rose", "classes=rose: must be a list"),
        ("prompts=[a rose]", "prompts=[a rose]: name two"),
        ("guidance_interval=[1,0]", "guidance_interval=[1, 0]: use two levels of noise"),
        ("guidance_interval=[1]", "guidance_interval=[1]: use two levels of noise"),
        ("video=avi", "video=avi: use mp4 or gif"),
        ("fps=0", "fps=0: use more"),
    ],
)
def test_mistakes_are_found_in_the_configuration_alone(config: DictConfig, override: str, words: str) -> None:
    config.merge_with_dotlist([override])
    with pytest.raises(LabError) as error:
        interpolation.check(config)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("classes=[2,2]", "classes=[tulip, tulip]: name two that differ"),
        ("classes=[0,moon]", "classes=moon: no such class; nearest"),
        ("prompts=[a rose,a lotus]", "class-conditional"),
    ],
)
def test_ends_that_a_run_cannot_have_are_refused(
    model: DiffusionModel, config: DictConfig, override: str, words: str
) -> None:
    config.merge_with_dotlist([override])
    with pytest.raises(LabError) as error:
        interpolation.ends_of(model, config)
    assert words in str(error.value)


def test_an_unconditional_run_refuses_classes(tiny_model: Callable[..., DiffusionModel], config: DictConfig) -> None:
    model = tiny_model(conditioner=Unconditional())
    assert interpolation.ends_of(model, config) is None
    config.classes = [0, 1]
    with pytest.raises(LabError, match="this run is unconditional"):
        interpolation.ends_of(model, config)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("point=3", "did you mean points?"),
        ("num_inference_steps=100000", "num_inference_steps=100000: use"),
        ("sampler=dddim", "sampler=dddim: use one of"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    class_run: Path, run_command: Command, tmp_path: Path, override: str, words: str
) -> None:
    code, said = run_command(interpolation.main, f"run={class_run}", f"out={tmp_path / 'out'}", override)
    assert code == 2 and words in said, said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_none_of_diffusion_is_refused(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    cfg = (class_run / "config.yaml").read_text().replace("task: diffusion", "task: autoencoder")
    (tmp_path / "config.yaml").write_text(cfg)
    code, said = run_command(interpolation.main, f"run={tmp_path}")
    assert code == 2 and "samples come from a diffusion run" in said
