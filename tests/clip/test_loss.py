import subprocess
import sys
from pathlib import Path

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn.functional import normalize

from lab.clip.loss import matching_loss, targets


def vectors(seed: int, count: int = 6, dim: int = 8) -> Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_one_truth_each_is_open_clips_loss() -> None:
    images, texts, scale = vectors(0), vectors(1), torch.tensor(10.0)
    loss, logits = matching_loss(images, texts, scale, *targets(torch.eye(6, dtype=torch.bool)))
    torch.testing.assert_close(loss.mean(), ClipLoss()(images, texts, scale))
    torch.testing.assert_close(logits, scale * images @ texts.T)


def test_targets_are_even_over_what_is_true() -> None:
    truth = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
    by_image, by_text = targets(truth)
    torch.testing.assert_close(by_image, torch.tensor([[0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5]]))
    third = 1 / 3
    torch.testing.assert_close(by_text, torch.tensor([[1.0, 0, 0], [third] * 3, [0, 0, 1.0]]))


def test_a_blended_image_has_its_share_of_both_truths() -> None:
    truth = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
    by_image, by_text = targets(truth, torch.tensor([2, 1, 0]), torch.tensor([0.75, 1.0, 0.6]))
    torch.testing.assert_close(by_image, torch.tensor([[0.375, 0.375, 0.25], [0, 1, 0], [0.2, 0.2, 0.6]]))
    expected = torch.tensor([[0.75, 0, 0.4], [0.75, 1, 0.4], [0.25, 0, 0.6]])
    torch.testing.assert_close(by_text, expected / expected.sum(dim=1, keepdim=True))


def test_a_true_caption_of_another_image_is_not_pushed_away() -> None:
    """Two images of one class with one caption each: with both true, equal logits are the optimum."""
    same = vectors(0, 1).expand(2, -1).clone().requires_grad_()
    loss, _ = matching_loss(same, same.detach(), torch.tensor(5.0), *targets(torch.ones(2, 2, dtype=torch.bool)))
    (gradient,) = torch.autograd.grad(loss.sum(), same)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


SCRIPT = """
import sys, torch, torch.distributed as dist
from torch.nn.functional import normalize
from lab.clip.loss import matching_loss, targets
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
draw = torch.Generator().manual_seed(0)
images, texts = torch.randn(2, 8, 5, generator=draw)
truth = torch.rand(8, 8, generator=draw) < 0.3
truth.fill_diagonal_(True)
rows = slice(rank * 8 // world, (rank + 1) * 8 // world)
weight = torch.randn(5, 4, generator=draw).requires_grad_()
by_image, by_text = (side[rows] for side in targets(truth))
a, b = normalize(images[rows] @ weight, dim=1), normalize(texts[rows] @ weight, dim=1)
loss = matching_loss(a, b, torch.tensor(7.0), by_image, by_text)[0].mean()
loss.backward()
found = torch.cat([weight.grad.flatten(), loss.detach()[None]])
if world > 1:
    dist.all_reduce(found)
    dist.destroy_process_group()
torch.save(found / world, store + f".{world}.{rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    for world in (1, 2):
        arguments = [[sys.executable, "-c", SCRIPT, str(rank), str(world), store] for rank in range(world)]
        processes = [subprocess.Popen(a, cwd=Path(__file__).parents[2]) for a in arguments]
        assert [process.wait(timeout=120) for process in processes] == [0] * world
    one, left, right = (torch.load(f"{store}.{name}.pt") for name in ("1.0", "2.0", "2.1"))
    torch.testing.assert_close(left, one, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(right, one, atol=1e-6, rtol=1e-5)
