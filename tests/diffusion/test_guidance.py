"""Guidance and its rescaling against their identities, at scales that nobody would call sensible."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lab.diffusion import Guidance, NoiseSchedule, Parameterization
from lab.diffusion.guidance import check_interval, gain_of, per_sample, split, std_ratio
from lab.errors import LabError

SCALES = [-10.0, -1.0, 0.0, 0.5, 1.0, 3.0, 10.0]


def branches(batch: int = 4) -> tuple[Tensor, Tensor]:
    """Conditional and unconditional outputs (B, 3, 8, 8), of different stds."""
    draw = torch.Generator().manual_seed(1)
    c, u = torch.randn(2, batch, 3, 8, 8, generator=draw, dtype=torch.float64)
    return 1.3 * c + 0.2, 0.7 * u - 0.1 + 0.5 * c


def guided_by(guidance: Guidance, c: Tensor, u: Tensor) -> Tensor:
    """As a denoiser puts it together: mixed, then multiplied by the gain."""
    mixed = guidance.mix(c, u)
    return mixed * per_sample(guidance.terms(c, u, mixed).gain, mixed)


def rescaled(guided: Tensor, c: Tensor, phi: float | Tensor) -> Tensor:
    return guided * gain_of(std_ratio(c, guided), phi)


def std(images: Tensor) -> Tensor:
    return images.std(dim=(1, 2, 3))


def test_the_named_scales() -> None:
    c, u = branches()
    for scale, expected in ((0.0, u), (1.0, c), (-10.0, 11 * u - 10 * c), (10.0, 10 * c - 9 * u)):
        torch.testing.assert_close(guided_by(Guidance(scale), c, u), expected)


@pytest.mark.parametrize("scale", SCALES)
def test_where_both_branches_agree_no_scale_matters(scale: float) -> None:
    c, _ = branches()
    torch.testing.assert_close(guided_by(Guidance(scale), c, c), c)


def test_it_is_linear_in_the_scale() -> None:
    """Equal steps of the scale are equal steps of the output; nothing is clipped or special-cased."""
    c, u = branches()
    for s in (-11.0, -1.0, 0.0, 1.0, 9.0, 99.0):
        torch.testing.assert_close(guided_by(Guidance(s + 1.0), c, u) - guided_by(Guidance(s), c, u), c - u)


@pytest.mark.parametrize("phi", [0.0, 0.7])
def test_one_scale_a_sample_equals_single_runs(phi: float) -> None:
    c, u = branches(len(SCALES))
    together = guided_by(Guidance(torch.tensor(SCALES), phi), c, u)
    for i, scale in enumerate(SCALES):
        alone = guided_by(Guidance(scale, phi), c[i : i + 1], u[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_every_pair_of_knobs_may_be_a_tensor() -> None:
    c, u = branches()
    scales, phis = torch.tensor([-3.0, 0.0, 2.0, 8.0]), torch.tensor([0.0, 0.5, 1.0, -2.0])
    together = guided_by(Guidance(scales, phis), c, u)
    for i in range(4):
        alone = guided_by(Guidance(float(scales[i]), float(phis[i])), c[i : i + 1], u[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
@pytest.mark.parametrize("scale", SCALES)
def test_guidance_is_the_same_in_every_space(name: str, scale: float) -> None:
    """x0 and eps are affine in the output, so guiding either of them is guiding the output."""
    c, u = branches()
    draw = torch.Generator().manual_seed(2)
    x_t, t = torch.randn(c.shape, generator=draw, dtype=c.dtype), torch.tensor([3, 300, 600, 900])
    formulas, guidance = Parameterization(NoiseSchedule(), name), Guidance(scale)
    of_output = formulas.predict(guided_by(guidance, c, u), x_t, t)
    of_c, of_u = formulas.predict(c, x_t, t), formulas.predict(u, x_t, t)
    torch.testing.assert_close(of_output.x0, guided_by(guidance, of_c.x0, of_u.x0), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(of_output.eps, guided_by(guidance, of_c.eps, of_u.eps), rtol=1e-6, atol=1e-9)


# -- phi ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_phi_0_leaves_and_phi_1_equals_the_std(scale: float) -> None:
    c, u = branches()
    guided = guided_by(Guidance(scale), c, u)
    torch.testing.assert_close(guided_by(Guidance(scale, 0.0), c, u), guided)
    torch.testing.assert_close(rescaled(guided, c, 0.0), guided)
    full = guided_by(Guidance(scale, 1.0), c, u)
    torch.testing.assert_close(std(full), std(c))
    torch.testing.assert_close(full / guided, (std(c) / std(guided)).view(-1, 1, 1, 1).expand_as(full))


def test_it_is_linear_in_phi_and_crosses_zero_where_the_gain_does() -> None:
    """A per-sample gain 1 + phi (r - 1): zero at phi = 1 / (1 - r), negative beyond."""
    c, u = branches()
    guided = guided_by(Guidance(4.0), c, u)
    ratio = std(c) / std(guided)
    assert bool((ratio < 0.9).all())
    for phi in (-5.0, -0.3, 0.2, 1.0, 7.0):
        gain = (1 + phi * (ratio - 1)).view(-1, 1, 1, 1)
        torch.testing.assert_close(rescaled(guided, c, phi), gain * guided)
    zero = 1 / (1 - ratio)
    torch.testing.assert_close(rescaled(guided, c, zero), torch.zeros_like(guided))
    beyond = rescaled(guided, c, 2 * zero)
    torch.testing.assert_close(beyond, -guided)


def test_rescaling_is_a_mixture_as_in_the_paper() -> None:
    """Lin et al. 2023, eq. 15-16: phi * guided * std(c) / std(guided) + (1 - phi) * guided."""
    c, u = branches()
    guided = guided_by(Guidance(7.5), c, u)
    as_printed = 0.7 * guided * (std(c) / std(guided)).view(-1, 1, 1, 1) + 0.3 * guided
    torch.testing.assert_close(rescaled(guided, c, 0.7), as_printed)


def test_at_scale_1_phi_does_nothing() -> None:
    c, u = branches()
    for phi in (-3.0, 0.5, 1.0, 9.0):
        torch.testing.assert_close(guided_by(Guidance(1.0, phi), c, u), c)


def test_phi_0_beside_other_phis_leaves_its_sample_even_without_contrast() -> None:
    """A flat output has no std to divide by, and at phi 0 none is needed."""
    flat = torch.zeros(2, 3, 4, 4)
    out = guided_by(Guidance(3.0, torch.tensor([0.0, 0.5])), flat, flat)
    assert torch.equal(out, flat)


# -- projection --------------------------------------------------------------------------------------


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3))


def test_a_difference_splits_into_what_is_along_and_what_is_across() -> None:
    c, u = branches()
    along, across = split(c - u, c)
    torch.testing.assert_close(along + across, c - u)
    torch.testing.assert_close(dot(across, c), torch.zeros(4, dtype=c.dtype), rtol=0, atol=1e-9)
    torch.testing.assert_close(dot(along, c).square(), dot(along, along) * dot(c, c))


@pytest.mark.parametrize("scale", SCALES)
def test_the_parallel_part_is_weighted(scale: float) -> None:
    """Sadat et al. 2024, eq. 7: all of it is plain guidance, none of it moves across c alone."""
    c, u = branches()
    plain = guided_by(Guidance(scale), c, u)
    along, across = split(c - u, c)
    for kept in (0.0, 0.3, 2.0):
        expected = c + (scale - 1) * (across + kept * along)
        torch.testing.assert_close(Guidance(scale, parallel=kept).mix(c, u), expected)
    mixed = Guidance(scale, parallel=torch.tensor([1.0, 0.0, 1.0, 0.5])).mix(c, u)
    torch.testing.assert_close(mixed[[0, 2]], plain[[0, 2]])
    torch.testing.assert_close(dot(mixed[1:2] - c[1:2], c[1:2]), torch.zeros(1, dtype=c.dtype), rtol=0, atol=1e-8)


def test_a_black_conditional_output_has_no_direction() -> None:
    u = branches()[1]
    torch.testing.assert_close(Guidance(3.0, parallel=0.0).mix(torch.zeros_like(u), u), -2 * u)


def test_terms_are_what_rescaling_did() -> None:
    c, u = branches()
    guidance = Guidance(torch.tensor([1.0, 2.0, -3.0, 9.0]), torch.tensor([0.0, 0.5, 1.0, -2.0]))
    mixed = guidance.mix(c, u)
    terms = guidance.terms(c, u, mixed)
    torch.testing.assert_close(terms.ratio, std(c) / std(mixed))
    torch.testing.assert_close(terms.gain, 1 + torch.tensor([0.0, 0.5, 1.0, -2.0]) * (std(c) / std(mixed) - 1))
    assert terms.conditional is c and terms.unconditional is u


# -- which branches are needed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guidance", "conditional", "unconditional"),
    [
        (Guidance(1.0), True, False),
        (Guidance(1.0, 0.5), True, False),  # the two stds are equal: phi does nothing
        (Guidance(0.0), False, True),
        (Guidance(0.0, 0.5), True, True),  # the conditional std is asked for
        (Guidance(3.0), True, True),
        (Guidance(0.0, parallel=0.5), True, True),  # its direction is asked for
        (Guidance(torch.tensor([1.0, 1.0])), True, False),
        (Guidance(torch.tensor([0.0, 0.0])), False, True),
        (Guidance(torch.tensor([0.0, 1.0])), True, True),
        (Guidance(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0])), True, True),
    ],
)
def test_a_branch_is_left_out_only_where_it_cancels(guidance: Guidance, conditional: bool, unconditional: bool) -> None:
    assert guidance.needs_conditional is conditional
    assert guidance.needs_unconditional is unconditional


def test_outside_its_interval_guidance_is_the_conditional_branch() -> None:
    c, u = branches(4)
    level = torch.tensor([0.0, 0.3, 0.7, 1.0])
    now = Guidance(3.0, 0.5, interval=(0.3, 0.8)).at(level)
    plain = guided_by(Guidance(3.0, 0.5), c, u)
    expected = torch.stack([c[0], plain[1], plain[2], c[3]])
    torch.testing.assert_close(guided_by(now, c, u), expected)
    ends = Guidance(3.0, 0.5, interval=(torch.tensor([0.0, 0.4, 0.7, 0.2]), torch.tensor([1.0, 1.0, 0.7, 0.9])))
    expected = torch.stack([plain[0], c[1], plain[2], c[3]])
    torch.testing.assert_close(guided_by(ends.at(level), c, u), expected)
    assert not Guidance(3.0, interval=(0.5, 1.0)).at(torch.full((4,), 0.2)).needs_unconditional
    assert not Guidance(0.0).at(level).needs_conditional


@pytest.mark.parametrize(
    "interval",
    [
        0.5,
        (0.5,),
        (0.6, 0.5),
        (-0.1, 1),
        (0, 1.1),
        (torch.tensor([0.1, 0.9]), 0.5),
        (torch.zeros(2), torch.ones(3)),
        (torch.rand(40), 0),
    ],
)
def test_an_interval_has_two_ends_in_order(interval: Any) -> None:
    with pytest.raises(LabError, match=r"^guidance_interval=.*: use two levels of noise") as error:
        check_interval("guidance_interval", interval)
    assert "\n" not in str(error.value)


def test_wrong_lengths_are_refused() -> None:
    c, u = branches(4)
    for knobs in (Guidance(torch.ones(3)), Guidance(2.0, torch.ones(5)), Guidance(torch.ones(0))):
        with pytest.raises(ValueError, match="values for 4 samples"):
            guided_by(knobs, c, u)


def test_a_knob_takes_shape_dtype_and_every_ndim_of_what_it_multiplies() -> None:
    for like in (torch.zeros(2, 3, 4, 4, dtype=torch.float64), torch.zeros(2, 5)):
        knob = per_sample(torch.tensor([1, 2]), like)
        assert knob.dtype == like.dtype and knob.shape == (2,) + (1,) * (like.ndim - 1)
        assert per_sample(0.5, like).flatten().tolist() == [0.5, 0.5]
