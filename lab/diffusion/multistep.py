"""Samplers that remember: a higher order for one evaluation a step, from what earlier steps predicted."""

import math
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lab.diffusion.schedule import NoiseSchedule, nearly_noise
from lab.diffusion.states import Denoiser, SamplerState, StepNoise, evaluate, pairs, state

ADAMS_BASHFORTH = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def plms(
    denoise: Denoiser, x: Tensor, schedule: NoiseSchedule, timesteps: Tensor, step_noise: StepNoise
) -> Iterator[SamplerState]:
    """Liu et al. 2022 (PNDM), eq. 11-12: DDIM along an eps that Adams-Bashforth extrapolates from up to four.

    x (B, C, H, W) unit noise; timesteps (S,) descending, the second level named twice: t0, t1, t1, t2, ...
    Exactly S evaluations: the first at t1 repeats the step to it with the mean eps of both ends, in place of the
    paper's Runge-Kutta start. A step from nearly pure noise is not repeated (`evaluation_times` names all levels once).
    """
    past: deque[Tensor] = deque(maxlen=4)
    before = None  # (x, eps, t) that the step to the present level came from, until it is repeated
    for step, t, t_next in pairs(timesteps):
        prediction = evaluate(denoise, x, t)
        if t_next == t:
            x_next = x
            if before is not None:
                x_before, eps, t_before = before
                x_next = _transfer(schedule, x_before, (eps + prediction.eps) / 2, t_before, t)
        else:
            past.appendleft(prediction.eps)
            if len(past) == 1:
                alpha, (alpha_next, sigma_next) = schedule.level(t)[0], schedule.level(t_next)
                x_next = alpha_next * prediction.x0 + sigma_next * prediction.eps
                before = None if nearly_noise(alpha) else (x, prediction.eps, t)
            else:
                eps = _weighted(ADAMS_BASHFORTH[len(past) - 1], past)
                x_next = _transfer(schedule, x, eps, t, t_next)
        yield state(step, t, x, prediction, x_next)
        x = x_next


def _transfer(schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: int, t_next: int) -> Tensor:
    """DDIM's step with an eps that is not the prediction's own (Liu et al. 2022, eq. 11)."""
    (alpha, sigma), (alpha_next, sigma_next) = schedule.level(t), schedule.level(t_next)
    return alpha_next / alpha * (x - sigma * eps) + sigma_next * eps


def _weighted(weights: Iterable[float], tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([weight * tensor for weight, tensor in zip(weights, tensors, strict=True)]).sum(0)


def lms(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    timesteps: Tensor,
    step_noise: StepNoise,
    order: int = 4,
) -> Iterator[SamplerState]:
    """k-diffusion's sample_lms: linear multistep for x / alpha in s = sigma / alpha, whose derivative is eps.

    x (B, C, H, W) unit noise; timesteps (S,) descending: exactly S evaluations. Nearly pure noise is not remembered.
    """
    past: deque[tuple[float, Tensor]] = deque(maxlen=order)
    for step, t, t_next in pairs(timesteps):
        prediction = evaluate(denoise, x, t)
        (alpha, sigma), (alpha_next, sigma_next) = schedule.level(t), schedule.level(t_next)
        if nearly_noise(alpha):
            x_next = alpha_next * prediction.x0 + sigma_next * prediction.eps
        else:
            past.appendleft((sigma / alpha, prediction.eps))
            weights = _integrals([s for s, _ in past], sigma_next / alpha_next)
            x_next = alpha_next * (x / alpha + _weighted(weights, [eps for _, eps in past]))
        yield state(step, t, x, prediction, x_next)
        x = x_next


def _integrals(nodes: list[float], end: float) -> list[float]:
    """Integrals from nodes[0] to `end` of the Lagrange polynomials over up to four nodes.

    They are cubic at most, which two points of Gauss-Legendre integrate exactly.
    """
    middle, half = (nodes[0] + end) / 2, (end - nodes[0]) / 2
    weights = []
    for j, node in enumerate(nodes):
        others = nodes[:j] + nodes[j + 1 :]
        at = (middle - half / math.sqrt(3), middle + half / math.sqrt(3))
        weights.append(half * sum(math.prod((s - other) / (node - other) for other in others) for s in at))
    return weights


def dpmpp_2m(
    denoise: Denoiser, x: Tensor, schedule: NoiseSchedule, timesteps: Tensor, step_noise: StepNoise
) -> Iterator[SamplerState]:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2: second order in lambda = log(alpha / sigma), on predicted x0.

    x (B, C, H, W) unit noise; timesteps (S,) descending: exactly S evaluations. The first step and the last, which
    is infinitely long in lambda, are of first order.
    """
    past: tuple[float, Tensor] | None = None
    for step, t, t_next in pairs(timesteps):
        prediction = evaluate(denoise, x, t)
        x_next = _data_step(schedule, x, prediction.x0, past, t, t_next)
        past = _remembered(schedule, prediction.x0, t)
        yield state(step, t, x, prediction, x_next)
        x = x_next


def unipc(
    denoise: Denoiser, x: Tensor, schedule: NoiseSchedule, timesteps: Tensor, step_noise: StepNoise
) -> Iterator[SamplerState]:
    """UniPC-2 (bh2), Zhao et al. 2023, algorithms 1 and 2: DPM-Solver++(2M), each step corrected by the evaluation
    that the next one makes anyway.

    x (B, C, H, W) unit noise; timesteps (S,) descending: exactly S evaluations. States hold the uncorrected x_t.
    """
    past: tuple[float, Tensor] | None = None
    origin: tuple[Tensor, Tensor, int, tuple[float, Tensor] | None] | None = None  # of the step to this level
    for step, t, t_next in pairs(timesteps):
        prediction = evaluate(denoise, x, t)
        corrected = x
        if origin is not None:
            x_before, x0_before, t_before, past_before = origin
            if not nearly_noise(schedule.level(t_before)[0]):
                corrected = _corrected(schedule, x_before, x0_before, prediction.x0, past_before, t_before, t)
        x_next = _data_step(schedule, corrected, prediction.x0, past, t, t_next)
        origin = (corrected, prediction.x0, t, past)
        past = _remembered(schedule, prediction.x0, t)
        yield state(step, t, x, prediction, x_next)
        x = x_next


def _lambda(schedule: NoiseSchedule, t: int) -> float:
    alpha, sigma = schedule.level(t)
    return math.log(alpha / sigma)


def _remembered(schedule: NoiseSchedule, x0: Tensor, t: int) -> tuple[float, Tensor] | None:
    """(lambda, x0) for the next step; nothing from nearly pure noise, which is too far away."""
    return None if nearly_noise(schedule.level(t)[0]) else (_lambda(schedule, t), x0)


def _data_step(
    schedule: NoiseSchedule, x: Tensor, x0: Tensor, past: tuple[float, Tensor] | None, t: int, t_next: int
) -> Tensor:
    """One step on predicted x0, extrapolated by the one before where there is one."""
    (alpha, sigma), (alpha_next, sigma_next) = schedule.level(t), schedule.level(t_next)
    if past is not None and t_next >= 0:
        now = _lambda(schedule, t)
        slope = (x0 - past[1]) / (now - past[0])
        x0 = x0 + (_lambda(schedule, t_next) - now) / 2 * slope
    return sigma_next / sigma * x + (alpha_next - alpha * sigma_next / sigma) * x0


def _corrected(
    schedule: NoiseSchedule,
    x: Tensor,
    x0: Tensor,
    x0_after: Tensor,
    past: tuple[float, Tensor] | None,
    t: int,
    t_after: int,
) -> Tensor:
    """UniC: the step from x at t once more, now that x0 is known at its end (Zhao et al. 2023, eq. 3 and 9)."""
    sigma, (alpha_after, sigma_after) = schedule.level(t)[1], schedule.level(t_after)
    now = _lambda(schedule, t)
    h = _lambda(schedule, t_after) - now
    phi = math.expm1(-h)  # B(h) of bh2
    change = x0_after - x0
    if past is None:
        correction = change / 2
    else:
        r = (past[0] - now) / h
        first = (phi / -h - 1) / phi
        second = 2 * ((phi / -h - 1) / -h - 0.5) / phi
        of_past = (second - first) / (r - 1)
        correction = of_past * (past[1] - x0) / r + (first - of_past) * change
    return sigma_after / sigma * x - alpha_after * phi * (x0 + correction)
