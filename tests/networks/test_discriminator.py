"""Patches judged one by one, and the hinge loss."""

import pytest
import torch

from lab.networks.discriminator import PatchDiscriminator, hinge_loss


@pytest.mark.parametrize(("size", "logits"), [(64, 6), (32, 2)])
def test_a_logit_for_each_patch(size: int, logits: int) -> None:
    assert PatchDiscriminator(16)(torch.zeros(2, 3, size, size)).shape == (2, 1, logits, logits)


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
