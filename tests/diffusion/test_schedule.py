"""Noise schedules against diffusers and their formulas, and the spacing of time steps."""

import math
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from lab.diffusion import NoiseSchedule
from lab.diffusion.schedule import BETAS, nearly_noise
from lab.errors import LabError


@pytest.mark.parametrize(
    ("ours", "theirs", "ends"),
    [
        ("linear", "linear", (1e-4, 0.02)),
        ("scaled_linear", "scaled_linear", (0.00085, 0.012)),
        ("cosine", "squaredcos_cap_v2", (1e-4, 0.02)),
    ],
)
@pytest.mark.parametrize("timesteps", [100, 1000, 4000])
def test_levels_are_those_of_diffusers(ours: str, theirs: str, ends: tuple[float, float], timesteps: int) -> None:
    """Diffusers computes in float32; its ends of beta are given for 1000 steps, ours are scaled to T."""
    start, end = (value * 1000 / timesteps for value in ends)
    reference: Any = DDPMScheduler(timesteps, beta_start=start, beta_end=end, beta_schedule=theirs)
    levels = NoiseSchedule(ours, timesteps).alphas_cumprod
    assert levels.dtype == torch.float64
    torch.testing.assert_close(levels, reference.alphas_cumprod.double(), rtol=3e-4, atol=1e-6)


def test_sigmoid_is_its_formula() -> None:
    """Jabri et al. 2022, with tau = 1: (sigmoid(3) - sigmoid(6u - 3)) / (sigmoid(3) - sigmoid(-3))."""

    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    levels = NoiseSchedule("sigmoid", 1000).alphas_cumprod
    for t in (0, 1, 249, 499, 800, 998):
        u = (t + 1) / 1000
        expected = (logistic(3) - logistic(6 * u - 3)) / (logistic(3) - logistic(-3))
        assert float(levels[t]) == pytest.approx(expected, rel=1e-9)
    assert float(levels[999]) == pytest.approx(float(levels[998]) * 0.001, rel=1e-9)


def test_the_middle_of_cosine_and_sigmoid_is_half_noise() -> None:
    assert float(NoiseSchedule("sigmoid", 1000).alphas_cumprod[499]) == pytest.approx(0.5, abs=1e-9)
    assert float(NoiseSchedule("cosine", 1000).alphas_cumprod[499]) == pytest.approx(0.4938, abs=1e-4)


@pytest.mark.parametrize("name", list(BETAS))
@pytest.mark.parametrize("timesteps", [25, 1000])
def test_noise_only_grows(name: str, timesteps: int) -> None:
    levels = NoiseSchedule(name, timesteps).alphas_cumprod
    assert levels.shape == (timesteps,)
    assert bool((levels.diff() < 0).all())
    assert 0 < float(levels[-1]) < float(levels[0]) < 1
    assert float(levels[-1]) < 0.01


@pytest.mark.parametrize("name", list(BETAS))
def test_the_number_of_steps_does_not_change_how_noisy_a_moment_is(name: str) -> None:
    """Half-way, a tenth of the way: the same level (to the order of a step) for 200 and for 4000 steps."""
    coarse, fine = NoiseSchedule(name, 200).alphas_cumprod, NoiseSchedule(name, 4000).alphas_cumprod
    torch.testing.assert_close(coarse[19:-20:20], fine[399:-400:400], rtol=0.1, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "theirs", "ends"),
    [("linear", "linear", (1e-4, 0.02)), ("scaled_linear", "scaled_linear", (0.00085, 0.012))],
)
def test_zero_terminal_snr_is_that_of_diffusers(name: str, theirs: str, ends: tuple[float, float]) -> None:
    reference: Any = DDPMScheduler(1000, beta_start=ends[0], beta_end=ends[1], beta_schedule=theirs)
    expected = (1 - rescale_zero_terminal_snr(reference.betas.double())).cumprod(0)
    levels = NoiseSchedule(name, 1000, zero_terminal_snr=True).alphas_cumprod
    torch.testing.assert_close(levels, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", list(BETAS))
def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_first_step(name: str) -> None:
    plain, rescaled = NoiseSchedule(name, 1000), NoiseSchedule(name, 1000, zero_terminal_snr=True)
    assert float(rescaled.alphas_cumprod[-1]) == 0
    assert float(rescaled.snr(torch.tensor([999]))) == 0
    assert float(rescaled.alphas_cumprod[0]) == pytest.approx(float(plain.alphas_cumprod[0]), rel=1e-12)
    assert bool((rescaled.alphas_cumprod.diff() < 0).all())


def test_levels_are_looked_up_for_each_sample_in_the_askers_dtype() -> None:
    schedule = NoiseSchedule("linear", 1000)
    t = torch.tensor([0, 500, 999, -1])
    for dtype in (torch.float32, torch.float64):
        alpha, sigma = schedule.alpha_sigma(t, torch.zeros(4, 3, 2, 2, dtype=dtype))
        assert alpha.dtype == sigma.dtype == dtype
        assert alpha.shape == sigma.shape == (4, 1, 1, 1)
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(4, 1, 1, 1, dtype=dtype))
    assert alpha[1, 0, 0, 0] ** 2 == pytest.approx(float(schedule.alphas_cumprod[500]))
    assert (float(alpha[3]), float(sigma[3])) == (1, 0)  # t = -1 is the picture itself


def test_snr_and_add_noise_are_their_formulas() -> None:
    schedule = NoiseSchedule("linear", 1000)
    t = torch.tensor([3, 700])
    level = schedule.alphas_cumprod[t]
    torch.testing.assert_close(schedule.snr(t), level / (1 - level))
    draw = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 2, 3, 4, 4, generator=draw, dtype=torch.float64)
    level = level.view(2, 1, 1, 1)
    torch.testing.assert_close(schedule.add_noise(x0, eps, t), level.sqrt() * x0 + (1 - level).sqrt() * eps)


def test_noised_unit_data_keep_unit_variance() -> None:
    draw = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 3, 64, 64, generator=draw)
    noised = NoiseSchedule("cosine").add_noise(x0, eps, torch.tensor([0, 300, 600, 999]))
    assert noised.std(dim=(1, 2, 3)).tolist() == pytest.approx([1] * 4, abs=0.03)


@pytest.mark.parametrize("total", [1, 2, 7, 50, 97, 1000])
def test_spacing_is_exactly_s_descending_steps_from_the_end(total: int) -> None:
    """Every S up to 50, then some: those that divide T and those that do not, 1 and T among them."""
    schedule = NoiseSchedule("cosine", total)
    for count in [*range(1, min(total, 50) + 1), 51, 96, 333, 500, 501, 997, 999, total]:
        if count > total:
            continue
        steps = schedule.spaced(count)
        assert steps.dtype == torch.int64 and len(steps) == count
        assert int(steps[0]) == total - 1
        assert int(steps[-1]) >= 0
        assert bool((steps.diff() < 0).all())
        gaps = -steps.diff()
        assert count == 1 or int(gaps.max() - gaps.min()) <= 1  # as even as whole numbers allow


@pytest.mark.parametrize(("name", "total"), [("cosine", 2), ("cosine", 50), ("cosine", 1000), ("linear", 1000)])
@pytest.mark.parametrize("zero_terminal", [False, True])
def test_karras_spacing_is_exactly_s_descending_steps_too(name: str, total: int, zero_terminal: bool) -> None:
    schedule = NoiseSchedule(name, total, zero_terminal)
    for count in {1, 2, 3, 7, 20, 333, total - 1, total} & set(range(1, total + 1)):
        steps = schedule.spaced(count, "karras")
        assert steps.dtype == torch.int64 and len(steps) == count
        assert int(steps[0]) == total - 1 and int(steps[-1]) >= 0
        assert bool((steps.diff() < 0).all())


def test_karras_levels_are_even_in_the_seventh_root_of_sigma() -> None:
    """Karras et al. 2022, eq. 5, from sigma 80 to that of the first time step; time steps are fine enough here."""
    schedule = NoiseSchedule("cosine", 20_000)
    levels = schedule.alphas_cumprod[schedule.spaced(10, "karras")]
    sigmas = ((1 - levels) / levels).sqrt()
    lowest = float(((1 - schedule.alphas_cumprod[0]) / schedule.alphas_cumprod[0]).sqrt())
    wanted = [(80 ** (1 / 7) + i / 9 * (lowest ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(10)]
    assert sigmas[1:].tolist() == pytest.approx(wanted[1:], rel=0.02)  # the first is always the last time step


def test_unknown_spacings_name_the_known() -> None:
    with pytest.raises(LabError, match=r"^spacing=trailin: use one of trailing, karras$"):
        NoiseSchedule().spaced(5, "trailin")


@pytest.mark.parametrize("zero_terminal", [False, True])
def test_a_level_is_alpha_and_sigma_of_one_time_step(zero_terminal: bool) -> None:
    schedule = NoiseSchedule("cosine", 100, zero_terminal)
    for t in (-1, 0, 57, 99):
        alpha, sigma = schedule.alpha_sigma(torch.tensor([t]), torch.zeros(1, 1, dtype=torch.float64))
        assert schedule.level(t) == pytest.approx((float(alpha), float(sigma)), abs=1e-15)


def test_nearly_noise_is_where_a_picture_is_drowned() -> None:
    """The last time step of a cosine schedule, none of a linear one."""
    assert [t for t in range(1000) if nearly_noise(NoiseSchedule("cosine").level(t)[0])] == [999]
    assert not nearly_noise(NoiseSchedule("linear").level(999)[0])
    assert nearly_noise(NoiseSchedule("linear", zero_terminal_snr=True).level(999)[0])


def test_known_spacings() -> None:
    schedule = NoiseSchedule("cosine", 1000)
    assert schedule.spaced(1).tolist() == [999]
    assert schedule.spaced(4).tolist() == [999, 749, 499, 249]
    assert schedule.spaced(3).tolist() == [
        999,
        666,
        332,
    ]  # Lin et al. 2023, table 2: round(flip(arange(T, 0, -T/S))) - 1
    assert schedule.spaced(1000).tolist() == list(range(999, -1, -1))


@pytest.mark.parametrize("count", [1, 5, 10, 50, 30, 64, 333, 999, 1000])
def test_spacing_is_that_of_diffusers(count: int) -> None:
    reference: Any = DDPMScheduler(1000, timestep_spacing="trailing")
    reference.set_timesteps(count)
    assert NoiseSchedule("linear", 1000).spaced(count).tolist() == reference.timesteps.tolist()[:count]


@pytest.mark.parametrize("count", [0, -3, 1001])
def test_impossible_step_counts_name_the_range(count: int) -> None:
    with pytest.raises(LabError, match=rf"^num_inference_steps={count}: use 1 to 1000[^\n]*$"):
        NoiseSchedule().spaced(count)


def test_unknown_schedules_name_the_known() -> None:
    with pytest.raises(LabError, match=r"beta_schedule=cosin: use one of linear, scaled_linear, cosine, sigmoid$"):
        NoiseSchedule("cosin")
    with pytest.raises(LabError, match=r"timesteps=0: use at least 1"):
        NoiseSchedule(timesteps=0)


@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize(("name", "least"), [("linear", 21), ("scaled_linear", 13), ("cosine", 1), ("sigmoid", 1)])
def test_a_schedule_is_finite_or_refused(name: str, least: int, zero_terminal: bool) -> None:
    """Scaled to few steps, linear betas reach 1."""
    least = max(least, 2) if zero_terminal else least
    for timesteps in range(2, least):
        with pytest.raises(LabError, match=rf"timesteps={timesteps}: too few for {name}"):
            NoiseSchedule(name, timesteps, zero_terminal)
    for timesteps in (least, least + 1, 50):
        levels = NoiseSchedule(name, timesteps, zero_terminal).alphas_cumprod
        assert bool(((levels >= 0) & (levels < 1)).all())  # which NaN is not
        assert zero_terminal or float(levels[-1]) > 0


def test_a_single_step_has_no_room_for_a_rescaled_end() -> None:
    with pytest.raises(LabError, match="timesteps=1: too few for cosine"):
        NoiseSchedule("cosine", 1, zero_terminal_snr=True)


def test_it_prints_as_it_is_built() -> None:
    schedule = NoiseSchedule("sigmoid", 10, zero_terminal_snr=True)
    again = eval(repr(schedule), {"NoiseSchedule": NoiseSchedule})
    assert torch.equal(again.alphas_cumprod, schedule.alphas_cumprod)
