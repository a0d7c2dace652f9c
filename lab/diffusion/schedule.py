"""Noise schedules: how much of the picture is left at each of T time steps."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lab.errors import LabError


def _linear(steps: int) -> Tensor:
    """Ho et al. 2020: beta from 1e-4 to 0.02, kept at the same total noise for any number of steps."""
    scale = 1000 / steps
    return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)


def _scaled_linear(steps: int) -> Tensor:
    """Latent diffusion (Rombach et al. 2022): linear in sqrt(beta) from 0.00085 to 0.012."""
    scale = 1000 / steps
    ends = math.sqrt(scale * 0.00085), math.sqrt(scale * 0.012)
    return torch.linspace(*ends, steps, dtype=torch.float64) ** 2


def _betas_of(alpha_bar: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """Betas (T,) of a continuous alpha_bar on [0, 1]; none above 0.999, so that the last step stays finite."""
    levels = alpha_bar(torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    return (1 - levels[1:] / levels[:-1]).clamp(max=0.999)


def _cosine(steps: int) -> Tensor:
    """Nichol & Dhariwal 2021, eq. 17."""
    return _betas_of(lambda u: torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, steps)


def _sigmoid(steps: int) -> Tensor:
    """Jabri, Fleet & Chen 2022 (start -3, end 3, temperature 1)."""

    def alpha_bar(u: Tensor) -> Tensor:
        start, end = torch.sigmoid(torch.tensor([-3.0, 3.0], dtype=torch.float64))
        return (end - torch.sigmoid(u * 6 - 3)) / (end - start)

    return _betas_of(alpha_bar, steps)


BETAS: dict[str, Callable[[int], Tensor]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "cosine": _cosine,
    "sigmoid": _sigmoid,
}


def _to_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Lin et al. 2023, algorithm 1: shift and scale sqrt(alpha_bar) so that the last step is pure noise."""
    root = alphas_cumprod.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * first / (first - last)) ** 2


SPACINGS = ("trailing", "karras")
NEARLY_NOISE = 1e-3  # alpha


def nearly_noise(alpha: float) -> bool:
    """Whether so little of the picture is left that x / alpha, and with it a solver in sigma / alpha, is no help.

    True for the last time step of a cosine schedule, and for that at zero terminal SNR, where alpha is 0.
    """
    return alpha < NEARLY_NOISE


class NoiseSchedule:
    """x_t = sqrt(alphas_cumprod[t]) x_0 + sqrt(1 - alphas_cumprod[t]) eps, for t = 0 (cleanest) .. T-1.

    `alphas_cumprod` is (T,) float64 on the CPU; what is looked up from it takes dtype and device of the asker.
    Raises LabError for an unknown schedule, and for fewer time steps than it can be scaled to.
    """

    def __init__(self, beta_schedule: str = "cosine", timesteps: int = 1000, zero_terminal_snr: bool = False) -> None:
        if beta_schedule not in BETAS:
            raise LabError(f"diffusion.schedule.beta_schedule={beta_schedule}: use one of {', '.join(BETAS)}")
        if timesteps < 1:
            raise LabError(f"diffusion.schedule.timesteps={timesteps}: use at least 1")
        self.beta_schedule, self.timesteps = beta_schedule, timesteps
        self.zero_terminal_snr = zero_terminal_snr
        betas = BETAS[beta_schedule](timesteps)
        if float(betas.max()) >= 1 or (zero_terminal_snr and timesteps < 2):
            raise LabError(f"diffusion.schedule.timesteps={timesteps}: too few for {beta_schedule}, use e.g. 1000")
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        self.alphas_cumprod = _to_zero_terminal_snr(alphas_cumprod) if zero_terminal_snr else alphas_cumprod
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def alpha_sigma(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t), each (B, 1, 1, 1) beside `like` (B, C, H, W); t (B,) integer.

        t = -1 is the picture itself: alpha 1, sigma 0.
        """
        shape = (-1,) + (1,) * (like.ndim - 1)
        alpha, sigma = (table[t].view(shape) for table in self._on(t.device))
        return alpha.to(like), sigma.to(like)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio alpha_t^2 / sigma_t^2 (B,), in float64 where t's device has it."""
        alpha, sigma = self._on(t.device)
        return (alpha[t] / sigma[t]).square()

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """alpha and sigma (T + 1,) of every time step and of the picture itself, kept where they are asked for."""
        if device not in self._tables:
            levels = torch.cat([self.alphas_cumprod, torch.ones(1, dtype=torch.float64)])
            dtype = torch.float32 if device.type == "mps" else torch.float64
            self._tables[device] = (levels.sqrt().to(device, dtype), (1 - levels).sqrt().to(device, dtype))
        return self._tables[device]

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, H, W): Ho et al. 2020, eq. 4."""
        alpha, sigma = self.alpha_sigma(t, x0)
        return alpha * x0 + sigma * eps

    def level(self, t: int) -> tuple[float, float]:
        """(alpha_t, sigma_t) of one time step; t = -1 is the picture itself: (1, 0)."""
        if t == -1:
            return 1.0, 0.0
        alpha_bar = float(self.alphas_cumprod[t])
        return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)

    def check_steps(self, num_inference_steps: int) -> None:
        """LabError unless 1 <= num_inference_steps <= T."""
        if not 1 <= num_inference_steps <= self.timesteps:
            asked = f"num_inference_steps={num_inference_steps}"
            raise LabError(f"{asked}: use 1 to {self.timesteps}, the schedule's time steps")

    def spaced(self, num_inference_steps: int, spacing: str = "trailing") -> Tensor:
        """Exactly S time steps, descending from T-1: (S,) int64.

        spacing: "trailing", evenly in t (Lin et al. 2023, table 2); "karras", evenly in (sigma/alpha)^(1/7), each
        rounded to a time step of its own (Karras et al. 2022, eq. 5), which looks closer at low noise.
        Raises LabError unless 1 <= S <= T, and for another spacing.
        """
        self.check_steps(num_inference_steps)
        if spacing not in SPACINGS:
            raise LabError(f"spacing={spacing}: use one of {', '.join(SPACINGS)}")
        if spacing == "karras":
            return self._karras(num_inference_steps)
        stride = self.timesteps / num_inference_steps
        places = self.timesteps - torch.arange(num_inference_steps, dtype=torch.float64) * stride
        return places.round().long() - 1

    def _karras(self, count: int, rho: float = 7.0) -> Tensor:
        """Time steps whose sigma/alpha is nearest to Karras et al.'s from 80 down, none twice, the first T-1."""
        levels = ((1 - self.alphas_cumprod) / self.alphas_cumprod.clamp(min=NEARLY_NOISE**2)).sqrt()
        ramp = torch.linspace(0, 1, count, dtype=torch.float64)
        wanted = torch.lerp(levels[-1].clamp(max=80.0) ** (1 / rho), levels[0] ** (1 / rho), ramp) ** rho
        nearest = (wanted.log()[:, None] - levels.log()).abs().argmin(dim=1)
        for place in range(count):  # descending, with room for those that follow
            below = self.timesteps if place == 0 else int(nearest[place - 1])
            nearest[place] = max(min(int(nearest[place]), below - 1), count - 1 - place)
        nearest[0] = self.timesteps - 1
        return nearest

    def __repr__(self) -> str:
        settings: dict[str, Any] = {
            "beta_schedule": self.beta_schedule,
            "timesteps": self.timesteps,
            "zero_terminal_snr": self.zero_terminal_snr,
        }
        return f"NoiseSchedule({', '.join(f'{key}={value!r}' for key, value in settings.items())})"
