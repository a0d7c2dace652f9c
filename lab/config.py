"""Configurations: composing one, building objects from one, and checking that every key is one that something reads."""

import inspect
import re
import types
import typing
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab.errors import LabError

CONF = Path(__file__).resolve().parent.parent / "conf"
OWN = ("lab.", "experiments.")  # what a `_target_` may name: a config from elsewhere runs no other code


def compose(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration that the command line asks for; LabError where it asks for what is not there."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base=None):
            return hydra.compose(config_name, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise LabError(_advice(error, config_name)) from error


def build(node: DictConfig, **arguments: Any) -> Any:
    """The object that a node with `_target_` describes; a LabError inside comes out as itself."""
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, LabError):
            cause = cause.__cause__
        raise cause or error from None


def check_keys(cfg: DictConfig, config_name: str) -> None:
    """LabError for a key that nothing reads, e.g. `+training.stpes=10`, or a value of the wrong type.

    A node with `_target_` may hold that callable's parameters, the top level what the primary config holds.
    """
    primary: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / f"{config_name}.yaml"))  # type: ignore[assignment]
    chosen = [group for entry in primary["defaults"] if entry != "_self_" for group in entry]
    groups = {group.split("@")[-1] for group in chosen if not group.startswith("override ")}
    _check_names("", map(str, cfg), primary.keys() | groups)
    for key, node in primary.items():
        if isinstance(node, dict) and key != "hydra":
            _check_names(f"{key}.", map(str, cfg[key]), set(node))
    _check_node("", OmegaConf.to_container(cfg, resolve=True))


def _check_node(path: str, node: Any) -> None:
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        target = str(node["_target_"])
        if not target.startswith(OWN):
            raise LabError(f"{path}._target_={target}: only classes of the lab can be built from a config")
        parameters = inspect.signature(get_object(target)).parameters
        names = [key for key in node if key != "_target_"]
        _check_names(f"{path}.", names, set(parameters))
        for name in names:
            _check_type(f"{path}.{name}", node[name], parameters[name].annotation)
    for key, child in node.items():
        _check_node(f"{path}.{key}".lstrip("."), child)


def _check_names(prefix: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise LabError(f"{prefix}{name}: nothing reads this key; {_hint(prefix, name, known)}")


def _hint(prefix: str, name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(sorted(known))}"


def _check_type(path: str, value: Any, annotation: Any) -> None:
    """Holds plain types and unions of them against the annotation; an int passes for a float."""
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    options = typing.get_args(annotation) if union else (annotation,)
    if not set(options) <= {int, float, str, bool, types.NoneType}:
        return
    fits = type(value) in options or (type(value) is int and float in options)
    if not fits:
        names = " or ".join("null" if option is types.NoneType else option.__name__ for option in options)
        raise LabError(f"{path}={value}: must be {names}")


def _advice(error: Exception, config_name: str) -> str:
    """Hydra's complaint on one line, with the nearest thing that exists."""
    text = " ".join(str(error).split())
    if option := re.search(r"Could not find '([\w/]+)/([\w-]+)'", text):
        group, name = option.groups()
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        if not options:
            return f"{group}={name}: there is no config group {group}"
        near = get_close_matches(name, options, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{group}={name}: no such option; {hint}known: {', '.join(options)}"
    if key := re.search(r"Could not override '([\w.@/]+)'", text):
        parent, _, name = key[1].rpartition(".")
        node = OmegaConf.select(compose(config_name, []), parent) if parent else compose(config_name, [])
        siblings = [str(sibling) for sibling in node] if isinstance(node, DictConfig) else []
        return f"{key[1]}: no such key; {_hint(f'{parent}.'.lstrip('.'), name, siblings)}"
    if group := re.search(r"In '[^']*': (.+)", text):
        text = group[1]
    return text
