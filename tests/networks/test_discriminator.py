"""Patches judged one by one, and the hinge loss."""

import pytest
import torch

from lab.networks.discriminator import POSES, PatchDiscriminator, hinge_loss, posed


@pytest.mark.parametrize(("size", "logits"), [(64, 6), (32, 2)])
def test_a_logit_for_each_patch(size: int, logits: int) -> None:
    assert PatchDiscriminator(16)(torch.zeros(2, 3, size, size)).shape == (2, 1, logits, logits)


@pytest.mark.parametrize("layers", [2, 3])
def test_a_picture_moved_by_its_stride_has_its_logits_moved_by_one(layers: int) -> None:
    judge = PatchDiscriminator(16, layers)
    local = torch.nn.Sequential(*(part for part in judge if not isinstance(part, torch.nn.GroupNorm)))
    picture, inside = torch.randn(1, 3, 128, 128), (..., slice(6, -6), slice(6, -6))  # where no edge is seen
    one, moved = local(picture), local(picture.roll(judge.stride, dims=3))
    torch.testing.assert_close(moved[inside], one.roll(1, dims=3)[inside])
    assert not torch.allclose(local(picture.roll(judge.stride // 2, dims=3))[inside], one[inside])


def test_poses_are_all_those_of_a_square() -> None:
    square = torch.arange(4.0).view(1, 1, 2, 2)
    quarters = [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1]]
    mirrored = [[b, a, d, c] for a, b, c, d in quarters]
    poses = [posed(square, (0, 0), pose).flatten().tolist() for pose in range(POSES)]
    assert poses == quarters + mirrored
    wide = torch.arange(6.0).view(1, 1, 2, 3)
    assert posed(wide, (1, 2), 0)[0, 0].tolist() == [[4, 5, 3], [1, 2, 0]]  # down by one, right by two
    assert posed(wide, (0, 0), 1).shape == (1, 1, 3, 2)


def test_hinge_is_its_formula_and_vanishes_beyond_its_margin() -> None:
    real, fake = (torch.tensor(values).view(2, 1, 1, 2) for values in ([2.0, 0.5, 1, 1], [-2.0, 0.0, -1, -5]))
    assert hinge_loss(real, fake).tolist() == pytest.approx([0.5 * (0.25 + 0.5), 0.0])


def test_it_learns_to_tell_noise_from_smooth_pictures() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(16)
    optimizer = torch.optim.Adam(judge.parameters(), 1e-3)
    for _ in range(30):
        smooth = torch.nn.functional.interpolate(torch.rand(8, 3, 4, 4), size=32, mode="bilinear")
        loss = hinge_loss(judge(smooth), judge(torch.rand(8, 3, 32, 32))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3  # 1 knows nothing
