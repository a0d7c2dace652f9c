from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab.clip import load_clip, retrieval
from lab.clip.task import PAINTED_AUGMENTATION, FlowerClipTask
from lab.data import ImageSet
from lab.errors import LabError

MakeSet = Callable[..., ImageSet]
COLOURS = ("red", "yellow", "blue", "white")
NAMES = ("rose", "buttercup", "gentian", "daisy")


@pytest.fixture
def discs(make_set: MakeSet) -> ImageSet:
    return make_set(COLOURS * 12, [0, 1, 2, 3] * 12, NAMES)


@pytest.fixture
def held_out(make_set: MakeSet) -> ImageSet:
    return make_set(COLOURS * 3, [0, 1, 2, 3] * 3, NAMES, seed=1)


@pytest.fixture
def task(discs: ImageSet, held_out: ImageSet) -> FlowerClipTask:
    return FlowerClipTask(discs, held_out, 16, seed=0, model="flower_clip_small")


def test_inputs_are_a_function_of_the_step(task: FlowerClipTask, discs: ImageSet, held_out: ImageSet) -> None:
    task.inputs(7)
    again = FlowerClipTask(discs, held_out, 16, seed=0, model="flower_clip_small")
    first, second, other = task.inputs(3), again.inputs(3), task.inputs(4)
    for key, value in first.items():
        torch.testing.assert_close(second[key], value)
    assert not torch.equal(first["images"], other["images"]) and not torch.equal(first["tokens"], other["tokens"])
    assert first["images"].shape == (16, 3, 64, 64) and first["tokens"].shape == (16, 24)


def test_two_ranks_see_what_one_process_sees(task: FlowerClipTask) -> None:
    whole, parts = task.inputs(5), [task.inputs(5, rank, 2) for rank in (0, 1)]
    for key, value in whole.items():
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), value)
    with pytest.raises(LabError, match="batch_size=16"):
        task.inputs(0, 0, 3)


def test_targets_join_images_of_one_class(task: FlowerClipTask) -> None:
    """In this set a colour is a class, so every caption is true of all images of the class."""
    task.mixed = False
    labels = task.image_set.labels[task.stream.indices(0)]
    same = (labels[:, None] == labels).float()
    torch.testing.assert_close(task.inputs(0)["image_targets"], same / same.sum(dim=1, keepdim=True))


def test_half_of_the_views_are_blended_and_their_own_caption_stays_the_truest(task: FlowerClipTask) -> None:
    task.strewn = 0.0
    mixed = task.inputs(0)
    task.mixed = False
    plain = task.inputs(0)
    assert torch.equal(mixed["tokens"], plain["tokens"])
    alike = (mixed["images"] == plain["images"]).flatten(1).all(dim=1)
    assert 4 <= int(alike.sum()) <= 12
    share = (mixed["image_targets"] * (plain["image_targets"] > 0)).sum(dim=1)  # on what is true of the picture itself
    assert torch.equal(mixed["image_targets"][alike], plain["image_targets"][alike])
    assert bool((share >= 0.5 - 1e-6).all()) and bool((share[~alike] < 1).any())
    for targets in (mixed["image_targets"], mixed["text_targets"]):
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(16))


def test_sides_are_kept_where_they_matter(discs: ImageSet, held_out: ImageSet) -> None:
    tasks = [FlowerClipTask(discs, held_out, 16, 0, "flower_clip_small", flip=flip) for flip in (True, False)]
    assert [task.augmentation.mirror for task in tasks] == [True, False]


def test_weights_come_from_the_seed_and_disturb_no_other_randomness(discs: ImageSet, held_out: ImageSet) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    tasks = [FlowerClipTask(discs, held_out, 16, seed, model="flower_clip_small") for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    a, b, c = (task.network.token_embedding.weight for task in tasks)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_forward_gives_a_loss_for_each_image(task: FlowerClipTask) -> None:
    losses = task(**task.inputs(0))
    assert losses["loss"].shape == losses["batch_top1"].shape == (16,)
    losses["loss"].mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    with torch.no_grad():
        task.network.logit_scale.fill_(20.0)
    assert float(task(**task.inputs(0))["logit_scale"]) == pytest.approx(100, rel=1e-5)


def test_it_learns_names_and_colours(task: FlowerClipTask) -> None:
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    for step in range(25):
        task.train()
        loss = task(**task.inputs(step))["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = task.eval().preview(Path("unused"), 25)
    assert found["top1"] >= 0.9 and found["colour_top1"] >= 0.9 and found["top5"] == 1.0


def test_preview_leaves_the_weights_alone(task: FlowerClipTask, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in task.state_dict().items()}
    found = task.train().preview(tmp_path, 1)
    assert set(found) == {"top1", "top5", "colour_top1"} and not list(tmp_path.iterdir())
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())
    assert task.training and all(parameter.requires_grad for parameter in task.parameters())


def test_export_is_what_the_preview_measured(task: FlowerClipTask, held_out: ImageSet, tmp_path: Path) -> None:
    clip = load_clip(pretrained=str(task.export(tmp_path / "clip")))
    assert clip.name == "flower_clip_small" and clip.fingerprint == task.clip().fingerprint
    assert clip.preprocess["mean"] == [0.5, 0.5, 0.5]
    assert retrieval(clip, held_out) == task.preview(tmp_path, 0)


def test_words_met_are_those_of_the_captions_so_far(task: FlowerClipTask) -> None:
    """Words that are strewn in are not met: they say nothing."""
    met = task.words_met(3)
    task.strewn = 0.0
    seen = [task.inputs(step)["tokens"].unique() for step in range(3)]
    assert torch.equal(met, torch.cat(seen).unique())
    assert set(task.words_met(1).tolist()) <= set(task.words_met(3).tolist())


def test_petals_are_never_cropped_away(make_set: MakeSet, discs: ImageSet, held_out: ImageSet) -> None:
    painted = make_set(["red"], [0], ["rose"], ["a red flower"], [{"petal_colour": "red", "petal_count": 5}])
    task = FlowerClipTask(painted, painted, 1, 0, "flower_clip_small")
    assert task.augmentation == PAINTED_AUGMENTATION and not task.mixed and not task.strewn
    task = FlowerClipTask(discs, held_out, 1, 0, "flower_clip_small")
    assert task.augmentation.area[0] < 0.5 and task.mixed and task.strewn == 0.5


def test_only_own_models_are_trained(discs: ImageSet, held_out: ImageSet) -> None:
    with pytest.raises(LabError, match="flower_clip_small"):
        FlowerClipTask(discs, held_out, 16, 0, model="ViT-B-32")


def test_the_loops_questions_are_answered(task: FlowerClipTask) -> None:
    assert task.epoch(6) == 2.0
    assert [index for index, _ in task.culprits(0)] == task.stream.indices(0).tolist()
