"""A mixture of Gaussians in the plane, whose ideal denoiser is known in closed form: there is nothing to be trained.

A point is a picture of two channels and one pixel, (B, 2, 1, 1), which guidance and samplers take as it is.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lab.conditioning import Condition
from lab.denoising import GuidedDenoiser
from lab.diffusion import Guidance, NoiseSchedule, Parameterization


class Mixture:
    """C equally likely classes of one or several equally likely components, K of them in all.

    means   of the components of each class, as (x, y)
    std     of every component, in each direction
    """

    def __init__(self, means: Sequence[Sequence[Sequence[float]]], std: float) -> None:
        self.means = torch.tensor([place for places in means for place in places], dtype=torch.float64)  # (K, 2)
        self.std = std
        shares = [torch.full((1, len(places)), 1 / len(places), dtype=torch.float64) for places in means]
        self.weights = torch.block_diag(*shares)  # (C, K): of each component within each class

    @property
    def marginal(self) -> Tensor:
        """Weights (K,) of the components where no class is asked for."""
        return self.weights.mean(dim=0)

    def log_density(self, points: Tensor, weights: Tensor) -> Tensor:
        """log p (B,) of points (B, 2) under components of these weights, (K,) or (B, K)."""
        distance = torch.cdist(points, self.means).square()  # (B, K)
        return (weights.log() - distance / (2 * self.std**2)).logsumexp(dim=1) - math.log(2 * math.pi * self.std**2)

    def class_posterior(self, points: Tensor) -> Tensor:
        """p(class | point), points (B, 2) -> (B, C)."""
        return torch.stack([self.log_density(points, weights) for weights in self.weights], dim=1).softmax(dim=1)

    def inside(self, points: Tensor, labels: Tensor) -> Tensor:
        """Whether each point (B, 2) lies where its class (B,) could have put it: near one of its components, (B,) bool.

        Near is where 95 % of a component lie.
        """
        distance = torch.cdist(points, self.means).masked_fill(self.weights[labels] == 0, math.inf)
        return distance.amin(dim=1) < self.std * math.sqrt(-2 * math.log(0.05))  # of a Gaussian in two dimensions

    def posterior_mean(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, weights: Tensor) -> Tensor:
        """E[x0 | x_t], the ideal denoiser, where x_t = alpha x0 + sigma eps: (B, 2, 1, 1) -> (B, 2, 1, 1).

        Of x_t, component k is a Gaussian around alpha m_k of variance v = alpha^2 std^2 + sigma^2. Given k, x0 is
        m_k + (alpha std^2 / v) (x_t - alpha m_k) on average (Bishop 2006, eq. 2.116), and k itself is as likely as its
        weight (B, K) times its density at x_t. alpha, sigma: (B, 1, 1, 1).
        """
        alpha, variance = alpha.flatten(1), (alpha * self.std).square().flatten(1) + sigma.square().flatten(1)
        away = x_t.flatten(1)[:, None] - alpha[:, None] * self.means  # (B, K, 2)
        likely = (weights.log() - away.square().sum(dim=2) / (2 * variance)).softmax(dim=1)
        each = self.means + (alpha * self.std**2 / variance)[:, None] * away
        return (likely[:, :, None] * each).sum(dim=1)[:, :, None, None]

    def denoiser(self, schedule: NoiseSchedule, labels: Tensor, guidance: Guidance) -> GuidedDenoiser:
        """What samplers take, for the class labels (B,): the lab's guidance of both ideal branches."""

        def network(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return self.posterior_mean(x, *schedule.alpha_sigma(t, x), condition.vector)

        null = Condition(self.marginal.expand(len(labels), -1))
        formulas = Parameterization(schedule, "x0")
        return GuidedDenoiser(network, formulas, Condition(self.weights[labels]), null, guidance)
