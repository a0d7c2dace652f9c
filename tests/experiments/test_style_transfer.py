"""Joining the way down later is switching on the way, at half the cost; and the command."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

import lab
from experiments import style_transfer, switching
from experiments.style_transfer import measure, switch_steps, towards_of
from experiments.switching import Pairs, join, levels_of, own_levels, pairs_of, transfer
from lab.clip.retrieval import phrase_vectors
from lab.conditioning import Condition
from lab.diffusion import Guidance
from lab.evaluators import clip_of
from lab.model import DiffusionModel
from lab.parts import Parts
from lab.render import read_provenance

Command = Callable[..., tuple[int, str]]
CFG: dict[str, Any] = {
    **dict.fromkeys(("classes", "prompts", "then_classes", "then_prompts", "images", "spacing", "batch_size")),
    **{"num_inference_steps": 8, "guidance_scale": 3.0, "guidance_interval": [0, 1], "seed": 0},
    **{"fixed_point_iterations": 3, "points": 3, "steps": None, "called_out": None},
}


def config(**changes: Any) -> Any:
    return OmegaConf.create({**CFG, **changes})


@pytest.fixture
def counted(model: DiffusionModel) -> list[int]:
    """Rows of each call of the network."""
    rows: list[int] = []
    model.network.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    return rows


def test_joining_late_is_switching_on_the_way(model: DiffusionModel) -> None:
    cfg, steps = config(classes=["rose", "tulip"], batch_size=3), [0, 1, 2, 5, 8]
    pairs = pairs_of(model, cfg)
    assert pairs.names == ["rose to tulip", "tulip to rose"]
    levels = own_levels(model, cfg, pairs.source.condition)
    assert levels.shape[:2] == (9, 2)
    for number in range(2):
        target = pairs.target.condition[number : number + 1]
        found = join(model, levels[:, number], steps, target, 3, guidance=Guidance(3.0))
        for step, picture in zip(steps, found, strict=True):
            alone = model.sample(
                condition=pairs.source.condition[number : number + 1], then=target, switch_step=step, numbers=[number],
                guidance_scale=3.0, num_inference_steps=8, sampler="ddim", output="tensor",
            )  # fmt: skip
            assert isinstance(alone, Tensor)
            torch.testing.assert_close(picture, alone[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("way", ["switch", "inversion", "renoise"])
def test_a_pair_is_told_in_one_way_at_every_step(model: DiffusionModel, tmp_path: Path, way: str) -> None:
    """What may be told in several ways: else frames would jump."""
    cfg = config(classes=["rose", "tulip"], ways=[way])
    pairs = pairs_of(model, cfg)

    ways = torch.tensor([[-1.0], [1.0], [2.0]])
    several, single = [], []
    for side in (pairs.source, pairs.target):
        vector = side.condition.vector
        condition = Condition(vector, choices=vector[:, None] * ways)
        several.append(replace(side, condition=condition))
        single.append(replace(side, condition=condition.chosen(0, range(2))))
    found, alone = (
        transfer(model, cfg, Pairs(*sides), [0, 2, 5, 8], None, Parts(tmp_path / name, {}))
        for name, sides in (("several", several), ("single", single))
    )
    torch.testing.assert_close(found, alone)


def test_what_is_shared_is_computed_once(model: DiffusionModel, counted: list[int]) -> None:
    cfg, steps = config(classes=["rose", "tulip"]), list(range(9))
    pairs = pairs_of(model, cfg)
    levels = own_levels(model, cfg, pairs.source.condition[:1])
    join(model, levels[:, 0], steps, pairs.target.condition[:1], guidance=Guidance(3.0))
    assert sum(counted) == 2 * (8 + sum(8 - k for k in steps))  # a loop takes 2 * 8 * 9
    assert len(counted) == 16  # and every evaluation once for all that have begun


def test_order_and_repetition_of_steps_do_not_matter(model: DiffusionModel) -> None:
    cfg = config(classes=["rose", "tulip"])
    pairs = pairs_of(model, cfg)
    levels = own_levels(model, cfg, pairs.source.condition[:1])[:, 0]
    found = join(model, levels, [8, 3, 3, 0], pairs.target.condition[:1], guidance=Guidance(3.0))
    assert torch.equal(found[1], found[2]) and not torch.equal(found[1], found[3])
    torch.testing.assert_close(found[0], model.autoencoder.decode(levels[-1:])[0].clamp(-1, 1).cpu())


def test_pictures_begin_at_their_inversion_or_with_noise(model: DiffusionModel) -> None:
    cfg = config(classes=["rose", "tulip"], num_inference_steps=40)
    condition = model.condition(classes=["rose", "tulip"])
    given = model.sample(classes=["rose", "tulip"], num_inference_steps=40, guidance_scale=1.0, output="tensor")
    assert isinstance(given, Tensor)
    inverted, noised = (levels_of(model, cfg, way, condition, given) for way in ("inversion", "renoise"))
    for levels in (inverted, noised):
        assert levels.shape == (41, 2, 3, 8, 8)
        torch.testing.assert_close(levels[-1], given)
    again = levels_of(model, cfg, "renoise", condition, given)
    assert torch.equal(again, noised)
    back = join(model, inverted[:, 0], [0], condition[:1], guidance=Guidance(1.0), thresholding="none")
    assert float((back[0] - given[0]).square().mean().sqrt()) < 0.05


def test_the_samples_that_all_ways_begin_with_are_made_once(
    model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, own = [], switching.own_levels

    def counted(model: DiffusionModel, cfg: DictConfig, source: Condition) -> Tensor:
        asked.append(len(source))
        return own(model, cfg, source)

    monkeypatch.setattr(switching, "own_levels", counted)
    cfg = config(classes=["rose", "tulip"], num_inference_steps=4, ways=["switch", "inversion", "renoise"])
    pairs = pairs_of(model, cfg)
    made = switching.transfer(model, cfg, pairs, [0, 2, 4], None, Parts(tmp_path, {}))
    assert made.shape == (3, 3, 2, 3, 8, 8) and asked == [2]
    for way in (1, 2):  # at the last step nothing has changed, whichever way it began
        torch.testing.assert_close(made[-1, way], made[-1, 0])


def test_steps_hold_the_called_out_and_the_last() -> None:
    assert switch_steps(config(num_inference_steps=256)) == ([0, 10, 128, 240, 256], [10, 128, 240])
    assert switch_steps(config(steps=[5, 2], called_out=[7])) == ([2, 5, 7, 8], [7])


def test_distance_is_from_the_last_step() -> None:
    made = torch.zeros(3, 2, 2, 3, 4, 4)  # steps, ways, pairs
    made[0, 1] = 0.6
    assert measure(made, ["switch", "renoise"], {}) == {
        "distance from the source (RMS)": {"switch": [0, 0, 0], "renoise": [pytest.approx(0.6), 0, 0]}
    }


def test_likeness_is_the_mean_over_pairs_each_with_its_own_ends() -> None:
    made = torch.arange(3.0)[:, None, None, None, None, None] + 10 * torch.arange(2.0)[:, None, None, None, None]
    made = made.expand(3, 2, 2, 3, 4, 4)  # steps, ways, pairs

    def similarity(images: Tensor, which: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3)) + 100 * which

    found = measure(made, ["switch", "renoise"], {"to the first": similarity})["to the first"]  # type: ignore[dict-item]
    assert found == {"switch": [50, 51, 52], "renoise": [60, 61, 62]}


def test_the_first_condition_and_the_second_are_compared_with_their_own_names(clip_run: Path) -> None:
    model = lab.load(clip_run)
    pairs = pairs_of(model, config(classes=[0, 2], then_classes=[1, 3]))
    clip = clip_of(model, clip_run)
    assert clip is not None
    towards = towards_of(model, str(clip_run), pairs)
    for found, end in zip(towards.values(), (pairs.source, pairs.target), strict=True):
        torch.testing.assert_close(found.texts, phrase_vectors(clip, end.phrases))
    assert list(towards) == ["CLIP similarity to the first", "CLIP similarity to the second"]


SMALL = ("num_inference_steps=4", "points=3", "called_out=[1]", "fixed_point_iterations=1")


def test_the_command_writes_video_stills_table_and_page(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "#ff0000").save(tmp_path / "a.png")
    asked = ("classes=[0]", "then_classes=[1]", f"images=[{tmp_path / 'a.png'}]", f"out={tmp_path / 'out'}")
    code, said = run_command(style_transfer.main, f"run={class_run}", *asked, *SMALL)
    assert code == 0, said
    assert "PSNR of the way back" in said
    names = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".json"}
    assert names == {"index.html", "parts", "stills.png", "style_transfer.csv", "style_transfer.mp4"}
    assert imageio.imread(tmp_path / "out" / "style_transfer.mp4", index=None).shape[0] == 4
    header, *rows = (tmp_path / "out" / "style_transfer.csv").read_text().splitlines()
    assert header.startswith("step,") and [row.split(",")[0] for row in rows] == ["0", "1", "2", "4"]
    assert read_provenance(tmp_path / "out" / "stills.png")["steps"] == [0, 1, 2, 4]


def test_what_the_run_guides_by_is_told_and_tells_pictures_apart(
    class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    """Of another default of the run nothing that was made before may be shown."""
    copied = tmp_path / "run"
    shutil.copytree(class_run, copied)
    asked = (f"run={copied}", f"out={tmp_path / 'out'}", "classes=[0]", "then_classes=[1]", "ways=[switch]", *SMALL)
    tables = []
    for scale in (3.0, 9.0):
        cfg = OmegaConf.load(copied / "config.yaml")
        cfg.sampling.guidance_scale, cfg.sampling.sampler = scale, "unipc"
        OmegaConf.save(cfg, copied / "config.yaml")
        code, said = run_command(style_transfer.main, *asked)
        assert code == 0, said
        facts = read_provenance(tmp_path / "out" / "stills.png")
        assert (facts["guidance_scale"], facts["sampler"], facts["spacing"]) == (scale, "ddim", "trailing")
        tables.append((tmp_path / "out" / "style_transfer.csv").read_text())
    assert tables[0] != tables[1]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("called_out=[257]", "called_out=257: use 0 to num_inference_steps=256"),
        ("steps=[-1]", "steps=-1: use 0 to"),
        ("steps=[]", "steps=[]: name at least one"),
        ("num_inference_steps=0", "num_inference_steps=0: use at least 1"),
        ("ways=[swap]", "ways=swap: use some of switch, inversion, renoise"),
        ("ways=[]", "ways=[]: name some"),
        ("then_classes=[1,2]", "name one for each"),
        ("classes=[1]", "then_classes: name what the picture turns to"),
        ("images=[a.png]", "images: 1 files for 3"),
        ("images=[a.png] ways=[switch]", "only inversion and renoise begin with them"),
        ("video=mov", "video=mov: use mp4 or gif"),
        ("fps=0", "fps=0"),
    ],
)
def test_mistakes_are_one_line(
    class_run: Path, run_command: Command, tmp_path: Path, override: str, words: str
) -> None:
    code, said = run_command(style_transfer.main, f"run={class_run}", f"out={tmp_path / 'out'}", *override.split())
    assert code == 2 and words in said, said
    assert not (tmp_path / "out").exists()


def test_half_way_is_where_half_of_the_distance_is_left() -> None:
    assert style_transfer.half_way([0, 8, 16, 32], [0.8, 0.5, 0.3, 0.0]) == 16
    assert style_transfer.half_way([0, 32], [0.0, 0.0]) == 0
