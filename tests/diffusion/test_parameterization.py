"""eps, x0 and v: round trips, agreement with one another, and the weights of their errors."""

import pytest
import torch
from torch import Tensor

from lab.diffusion import NoiseSchedule, Parameterization
from lab.diffusion.parameterization import LOSS_WEIGHTINGS, PREDICTION_TYPES
from lab.errors import LabError

SCHEDULE = NoiseSchedule("cosine", 1000)
T = torch.tensor([0, 5, 20, 100, 400, 700, 950, 999])


def picture_and_noise() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, len(T), 3, 4, 4, generator=draw, dtype=torch.float64)
    return x0, eps


@pytest.mark.parametrize("name", PREDICTION_TYPES)
def test_the_target_predicts_what_it_was_made_from(name: str) -> None:
    x0, eps = picture_and_noise()
    formulas = Parameterization(SCHEDULE, name)
    prediction = formulas.predict(formulas.target(x0, eps, T), SCHEDULE.add_noise(x0, eps, T), T)
    torch.testing.assert_close(prediction.x0, x0, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(prediction.eps, eps, rtol=1e-7, atol=1e-7)


def test_v_is_its_formula() -> None:
    """Salimans & Ho 2022: v = alpha eps - sigma x0."""
    x0, eps = picture_and_noise()
    level = SCHEDULE.alphas_cumprod[T].view(-1, 1, 1, 1)
    expected = level.sqrt() * eps - (1 - level).sqrt() * x0
    torch.testing.assert_close(Parameterization(SCHEDULE, "v").target(x0, eps, T), expected)


@pytest.mark.parametrize("name", PREDICTION_TYPES)
def test_any_output_gives_a_prediction_that_adds_up_to_x_t(name: str) -> None:
    """x_t = alpha x0 + sigma eps holds for what is predicted, right or wrong."""
    x_t, output = picture_and_noise()
    prediction = Parameterization(SCHEDULE, name).predict(output, x_t, T)
    torch.testing.assert_close(SCHEDULE.add_noise(prediction.x0, prediction.eps, T), x_t, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", PREDICTION_TYPES)
def test_a_clipped_x0_comes_with_its_own_eps(name: str) -> None:
    x_t, output = picture_and_noise()
    formulas = Parameterization(SCHEDULE, name)
    clipped = formulas.predict(output, x_t, T).x0.clamp(-1, 1)
    prediction = formulas.from_x0(clipped, x_t, T)
    assert torch.equal(prediction.x0, clipped)
    torch.testing.assert_close(SCHEDULE.add_noise(prediction.x0, prediction.eps, T), x_t, rtol=1e-7, atol=1e-7)


def test_predictions_are_finite_at_zero_terminal_snr() -> None:
    schedule = NoiseSchedule("linear", 1000, zero_terminal_snr=True)
    x0, eps = picture_and_noise()
    x_t = schedule.add_noise(x0, eps, T)
    torch.testing.assert_close(x_t[-1], eps[-1])
    for name in ("x0", "v"):
        formulas = Parameterization(schedule, name)
        prediction = formulas.predict(formulas.target(x0, eps, T), x_t, T)
        torch.testing.assert_close(prediction.x0, x0, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(prediction.eps, eps, rtol=1e-7, atol=1e-7)


# -- weights -----------------------------------------------------------------------------------------


def x0_weight(weighting: str, t: Tensor, gamma: float = 5.0, min_sigma: float = 0.15) -> Tensor:
    """What one unit of squared x0 error costs (B,), from the definitions."""
    level = SCHEDULE.alphas_cumprod[t]
    snr = level / (1 - level)
    return {
        "x0": torch.ones_like(snr),
        "eps": snr,
        "v": 1 / (1 - level).clamp(min=min_sigma**2),
        "min_snr": torch.minimum(snr, torch.full_like(snr, gamma)),
    }[weighting]


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("weighting", LOSS_WEIGHTINGS)
def test_the_weighted_error_is_the_same_whatever_is_predicted(prediction_type: str, weighting: str) -> None:
    """Away from the floor under sigma, which a v-network's own error does not need."""
    t = T[T >= 100]
    x0, eps = (a[T >= 100] for a in picture_and_noise())
    x_t = SCHEDULE.add_noise(x0, eps, t)
    formulas = Parameterization(SCHEDULE, prediction_type, weighting)
    wrong = formulas.target(x0, eps, t) + 0.1 * torch.randn(x0.shape, dtype=x0.dtype)
    own_error = (wrong - formulas.target(x0, eps, t)).square().mean(dim=(1, 2, 3))
    x0_error = (formulas.predict(wrong, x_t, t).x0 - x0).square().mean(dim=(1, 2, 3))
    weighted = own_error * formulas.loss_weight(t)
    torch.testing.assert_close(weighted, x0_error * x0_weight(weighting, t), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", PREDICTION_TYPES)
def test_its_own_weighting_is_a_plain_squared_error(name: str) -> None:
    for formulas in (Parameterization(SCHEDULE, name), Parameterization(SCHEDULE, name, name)):
        weight = formulas.loss_weight(T)
        assert weight.dtype == torch.float32 and weight.tolist() == [1] * len(T)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_its_closed_form(gamma: float) -> None:
    """Hang et al. 2023, section 3.4: min(SNR, gamma) on x0, min(SNR, gamma)/SNR on eps, /(SNR + 1) on v."""
    snr = SCHEDULE.snr(T)
    capped = snr.clamp(max=gamma)
    expected = {"x0": capped, "eps": capped / snr, "v": capped / (snr + 1)}
    for name, weight in expected.items():
        formulas = Parameterization(SCHEDULE, name, "min_snr", min_snr_gamma=gamma)
        torch.testing.assert_close(formulas.loss_weight(T), weight.float())


def test_sigma_has_a_floor_in_vs_weight_on_x0() -> None:
    weight = Parameterization(SCHEDULE, "x0", "v", min_sigma=0.15).loss_weight(T)
    sigma = (1 - SCHEDULE.alphas_cumprod[T]).sqrt()
    torch.testing.assert_close(weight, (1 / sigma.clamp(min=0.15) ** 2).float())
    assert weight[:3].tolist() == pytest.approx([1 / 0.15**2] * 3)  # sigma is 0.006 .. 0.04 there
    unbounded = Parameterization(SCHEDULE, "x0", "v", min_sigma=0.0).loss_weight(T)
    assert float(unbounded[0]) == pytest.approx(float(sigma[0] ** -2), rel=1e-5)
    assert float(unbounded[0]) > 20_000


def test_weights_are_finite_at_zero_terminal_snr() -> None:
    schedule = NoiseSchedule("cosine", 1000, zero_terminal_snr=True)
    for name in ("x0", "v"):
        for weighting in LOSS_WEIGHTINGS:
            weight = Parameterization(schedule, name, weighting).loss_weight(T)
            assert bool(weight.isfinite().all()) and bool((weight >= 0).all())


def test_unknown_names_are_refused_with_the_known() -> None:
    with pytest.raises(LabError, match=r"prediction_type=epsilon: use one of eps, x0, v$"):
        Parameterization(SCHEDULE, "epsilon")
    with pytest.raises(LabError, match=r"loss_weighting=snr: use one of eps, x0, v, min_snr$"):
        Parameterization(SCHEDULE, "v", "snr")


def test_eps_is_refused_where_the_end_is_pure_noise() -> None:
    with pytest.raises(LabError, match=r"prediction_type=eps [^\n]*zero terminal SNR: use v or x0$"):
        Parameterization(NoiseSchedule(zero_terminal_snr=True), "eps")
