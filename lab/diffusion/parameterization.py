"""What a network predicts, how that is turned into x0 and eps, and how its errors are weighted."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lab.diffusion.guidance import GuidanceTerms
from lab.diffusion.schedule import NoiseSchedule
from lab.errors import LabError

PREDICTION_TYPES = ("eps", "x0", "v")
LOSS_WEIGHTINGS = ("eps", "x0", "v", "min_snr")


@dataclass(frozen=True)
class Prediction:
    """Two views of one network output, tied by x_t = alpha x0 + sigma eps, and how guidance came to it."""

    x0: Tensor  # (B, C, H, W)
    eps: Tensor  # (B, C, H, W)
    guidance: GuidanceTerms | None = None  # where both branches were evaluated
    clip_fraction: Tensor | None = None  # (B,) share of x0 outside [-1, 1] before it was brought back; pixels only


class Parameterization:
    """`prediction_type` eps, x0 or v (Salimans & Ho 2022), with a loss weight of its own or of another.

    loss_weighting names the space in which a plain squared error is taken: "eps", "x0", "v", or "min_snr"
    (Hang et al. 2023: the x0 error times min(SNR, min_snr_gamma)). "v" on an x0-network is the recipe for a
    space-to-depth door: x0 error / sigma^2, with sigma held above min_sigma.
    Raises LabError for names it does not know, and for eps at a schedule that ends in pure noise.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        prediction_type: str = "x0",
        loss_weighting: str | None = None,
        min_snr_gamma: float = 5.0,
        min_sigma: float = 0.15,
    ) -> None:
        self.schedule = schedule
        self.prediction_type = prediction_type
        self.loss_weighting = loss_weighting or prediction_type
        self.min_snr_gamma, self.min_sigma = min_snr_gamma, min_sigma
        if prediction_type not in PREDICTION_TYPES:
            raise LabError(f"diffusion.prediction_type={prediction_type}: use one of {', '.join(PREDICTION_TYPES)}")
        if self.loss_weighting not in LOSS_WEIGHTINGS:
            names = ", ".join(LOSS_WEIGHTINGS)
            raise LabError(f"diffusion.loss_weighting={self.loss_weighting}: use one of {names}")
        if prediction_type == "eps" and schedule.zero_terminal_snr:
            raise LabError("diffusion.prediction_type=eps says nothing about x0 at zero terminal SNR: use v or x0")

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should have said, (B, C, H, W)."""
        if self.prediction_type == "x0":
            return x0
        if self.prediction_type == "eps":
            return eps
        alpha, sigma = self.schedule.alpha_sigma(t, x0)
        return alpha * eps - sigma * x0

    def predict(self, output: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        """Network output (B, C, H, W) at x_t to (x0, eps)."""
        alpha, sigma = self.schedule.alpha_sigma(t, x_t)
        if self.prediction_type == "x0":
            return self.from_x0(output, x_t, t)
        if self.prediction_type == "eps":
            return Prediction((x_t - sigma * output) / alpha, output)
        return Prediction(alpha * x_t - sigma * output, sigma * x_t + alpha * output)

    def from_x0(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        """The prediction whose x0 is given; eps re-derived, so that clipping x0 moves the sample consistently."""
        alpha, sigma = self.schedule.alpha_sigma(t, x_t)
        return Prediction(x0, (x_t - alpha * x0) / sigma)

    def loss_weight(self, t: Tensor) -> Tensor:
        """Factor (B,) float32 on the mean squared error of the network's own output.

        The error of x0 weighs SNR for eps, SNR + 1 for v, 1 for x0 (all describe the same x_t), so a weighting
        is written for x0 and divided by that of what the network predicts.
        """
        snr = self.schedule.snr(t)
        of_x0 = {
            "x0": torch.ones_like(snr),
            "eps": snr,
            "v": 1 / (1 / (snr + 1)).clamp(min=self.min_sigma**2),
            "min_snr": snr.clamp(max=self.min_snr_gamma),
        }
        if self.loss_weighting == self.prediction_type:
            return torch.ones_like(snr, dtype=torch.float32)
        per_output = {"x0": torch.ones_like(snr), "eps": snr, "v": snr + 1}[self.prediction_type]
        return (of_x0[self.loss_weighting] / per_output).float()
