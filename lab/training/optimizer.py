"""AdamW: made, kept within a gradient norm, saved and restored."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from lab.training.settings import TrainingSettings


def make_adamw(parameters: Iterable[nn.Parameter], settings: TrainingSettings, device: torch.device) -> AdamW:
    """AdamW as the settings say (Loshchilov & Hutter 2019), with the fused kernel where there is one."""
    return AdamW(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def clip(adamw: AdamW, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """The norm of all gradients (); the next step takes them scaled down to `limit` where it is above; 0: as they are.

    The fused kernel divides them in passing, and leaves in `grad` what it took; for another they are scaled here.
    """
    parameters = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(p.grad for p in parameters if p.grad is not None)
    if adamw.defaults["fused"]:
        adamw.grad_scale = (norm / limit).clamp(min=1) if limit else None  # type: ignore[attr-defined]
    elif limit:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def state_tensors(optimizer: AdamW, names: Iterable[str]) -> dict[str, Tensor]:
    """The optimiser's state by "parameter/field"; `names` are those of its parameters, in order."""
    of, states = list(names), optimizer.state_dict()["state"]
    return {f"{of[i]}/{key}": value for i, entry in states.items() for key, value in entry.items()}


def load_state(optimizer: AdamW, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Take the state of `state_tensors` for named parameters in the optimiser's order.

    It is laid out in memory as the parameters are, which the fused kernel relies on. Raises KeyError for other names.
    """
    order = {name: number for number, name in enumerate(parameters)}
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, field = key.rsplit("/", 1)
        if value.shape == parameters[name].shape:
            value = torch.empty_like(parameters[name], requires_grad=False).copy_(value)
        states.setdefault(order[name], {})[field] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
