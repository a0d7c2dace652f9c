"""What the judge is trained on, and that it learns."""

from collections.abc import Callable

import pytest
import torch

from lab.data import ImageSet
from lab.errors import LabError
from lab.judging import Judge, JudgeNetwork, JudgeTask
from lab.judging.task import recognition

MakeDiscs = Callable[[int, int], ImageSet]


@pytest.fixture
def task(make_discs: MakeDiscs) -> JudgeTask:
    return JudgeTask(make_discs(12, 0), make_discs(4, 1), 16, seed=0)


def test_inputs_are_a_function_of_the_step_and_shared_among_ranks(task: JudgeTask, make_discs: MakeDiscs) -> None:
    whole, other = task.inputs(3), task.inputs(4)
    again = JudgeTask(make_discs(12, 0), make_discs(4, 1), 16, seed=0).inputs(3)
    parts = [task.inputs(3, rank, 2) for rank in (0, 1)]
    for key, value in whole.items():
        assert torch.equal(again[key], value)
        assert torch.equal(torch.cat([part[key] for part in parts]), value)
    assert not torch.equal(whole["images"], other["images"])


def test_sides_are_kept_where_they_matter(make_discs: MakeDiscs) -> None:
    tasks = [JudgeTask(make_discs(12, 0), make_discs(4, 1), 16, seed=0, flip=flip) for flip in (True, False)]
    assert [task.augmentation.mirror for task in tasks] == [True, False]
    mirrored = tasks[0].augmentation(tasks[0].image_set.pixels[:16], 32, torch.Generator().manual_seed(1), slice(None))
    kept = tasks[1].augmentation(tasks[1].image_set.pixels[:16], 32, torch.Generator().manual_seed(1), slice(None))
    same = (mirrored == kept).flatten(1).all(dim=1)
    assert 0 < int(same.sum()) < 16  # else alike


def test_half_of_the_views_are_blended_with_another(task: JudgeTask) -> None:
    weights = torch.cat([task.inputs(step)["weight"] for step in range(60)])
    assert 0.45 < float((weights == 1).float().mean()) < 0.55
    blended = weights[weights < 1]
    assert float(blended.mean()) == pytest.approx(0.5, abs=0.05) and float(blended.min()) >= 0


def test_the_loss_of_a_blend_is_the_blend_of_losses(task: JudgeTask) -> None:
    task.eval()
    images, labels, others = torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]), torch.tensor([2, 3])
    losses = [task(images, labels, others, torch.full((2,), weight))["loss"] for weight in (1.0, 0.0, 0.25)]
    torch.testing.assert_close(losses[2], 0.25 * losses[0] + 0.75 * losses[1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_are_smoothed(make_discs: MakeDiscs, smoothing: float) -> None:
    """Szegedy et al. 2016, section 7: a share of the target is spread over all classes."""
    task = JudgeTask(make_discs(2, 0), make_discs(1, 1), 4, seed=0, smoothing=smoothing).eval()
    logits = torch.tensor([2.0, 0.5, -1.0, 0.0])
    torch.nn.init.zeros_(task.network.last.weight)
    with torch.no_grad():
        task.network.last.bias.copy_(logits)
    told = task(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]), torch.tensor([0, 1]), torch.ones(2))
    target = (1 - smoothing) * torch.eye(4)[:2] + smoothing / 4
    torch.testing.assert_close(told["loss"], -(target * logits.log_softmax(dim=0)).sum(dim=1))


@pytest.mark.slow
def test_it_learns_colours(task: JudgeTask) -> None:
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    for step in range(25):
        task.train()
        task(**task.inputs(step))["loss"].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    found = task.preview(None, 0)  # type: ignore[arg-type]
    assert found["top1"] > 0.8 and found["top5"] == 1.0


def test_recognition_counts_the_first_and_the_first_five(make_discs: MakeDiscs) -> None:
    class Fixed(JudgeNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([3.0, 2.0, 1.0, 0.0]).expand(len(images), -1)

    judge = Judge(Fixed(4), ("a", "b", "c", "d"), 32, {})
    assert recognition(judge, make_discs(3, 0)) == {"top1": 0.25, "top5": 1.0}


def test_a_set_without_classes_is_refused(make_discs: MakeDiscs) -> None:
    some = make_discs(2, 0)
    bare = ImageSet("bare", some.pixels, some.labels * 0 - 1, (), 32, (), (), "f")
    with pytest.raises(LabError, match="bare: has no classes"):
        JudgeTask(bare, bare, 4, seed=0)
    alone = ImageSet("alone", some.pixels, some.labels * 0, ("rose",), 32, (), (), "f")
    with pytest.raises(LabError, match="alone: has no classes to be told apart; a judge needs two"):
        JudgeTask(alone, alone, 4, seed=0)
