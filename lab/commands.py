"""The command line that makes something again."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab.config import compose

# Words that Hydra takes as text without quotes, but for those that it means otherwise.
PLAIN = re.compile(r"(?:\.{0,2}/|[A-Za-z_])[\w./-]*", re.ASCII)
MEANT_OTHERWISE = ("null", "true", "false", "nan", "inf")


def command_line(module: str, cfg: DictConfig) -> str:
    """`python -m MODULE` with all that differs from its configuration's defaults, quoted for a shell."""
    defaults = dict(_flat(OmegaConf.to_container(compose(module.rpartition(".")[2], []), resolve=True)))
    asked = _flat(OmegaConf.to_container(cfg, resolve=True))
    changed = [f"{key}={shlex.quote(_written(value))}" for key, value in asked if value != defaults.get(key)]
    return " ".join([f"python -m {module}", *changed])


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Keys, joined by points, and values that are no mappings."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _written(value: Any) -> str:
    """A value as Hydra's command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not (PLAIN.fullmatch(value) and value.lower() not in MEANT_OTHERWISE):
        return '"' + re.sub(r"(\\+)$", r"\1\1", re.sub(r'(\\*)"', r'\1\1\\"', value)) + '"'
    return str(value)
