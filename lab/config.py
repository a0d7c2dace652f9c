"""Configurations: composing one, building objects from one, and checking that every key is one that something reads."""

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab.annotations import describe, fits
from lab.errors import LabError

CONF = Path(__file__).resolve().parent.parent / "conf"
OWN = ("lab.", "experiments.")  # what a `_target_` may name: a config from elsewhere runs no other code


def compose(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration that the command line asks for; LabError where it asks for what is not there."""
    return _compose(config_name, overrides)


def run_folder(config_name: str, overrides: Sequence[str]) -> Path:
    """Where a command with these overrides puts its run: hydra.run.dir."""
    return Path(_compose(config_name, overrides, return_hydra_config=True).hydra.run.dir)


def _compose(config_name: str, overrides: Sequence[str], **how: bool) -> DictConfig:
    GlobalHydra.instance().clear()
    with advice(config_name, overrides), hydra.initialize_config_dir(str(CONF), version_base=None):
        return hydra.compose(config_name, list(overrides), **how)


@contextlib.contextmanager
def advice(config_name: str, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Hydra's complaint about a command line becomes a LabError that names the nearest thing there is."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise LabError(_advice(error, config_name, overrides)) from error
    except ValueError as error:
        if "Config group override" not in str(error):  # e.g. training=3, which Hydra has no exception for
            raise
        raise LabError("a config group takes the name of one of its options, e.g. training=default") from error


def build(node: DictConfig, **arguments: Any) -> Any:
    """The object that a node with `_target_` describes; LabError where its class cannot take the values."""
    try:
        return instantiate(node, **arguments)
    except (InstantiationException, OmegaConfBaseException) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, LabError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from None
        raise LabError(f"{node.get('_target_')}: cannot be built with these values ({_one_line(error)})") from error


def check_keys(cfg: DictConfig, config_name: str) -> None:
    """LabError for a key that nothing reads, e.g. `+training.stpes=10`, or a value of the wrong type.

    A node with `_target_` may hold that class's parameters, the top level what the primary config holds.
    """
    try:
        given: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise LabError(_one_line(error)) from error
    primary: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / f"{config_name}.yaml"))  # type: ignore[assignment]
    chosen = [group for entry in primary["defaults"] if entry != "_self_" for group in entry]
    groups = {group.split("@")[-1].split(".")[0] for group in chosen if not group.startswith("override ")}
    _check_names("", map(str, given), (primary.keys() | groups) - {"defaults", "hydra"})
    for key in given:
        known = primary.get(key)
        if (isinstance(known, dict) or key in groups) and not isinstance(given[key], dict):
            raise LabError(f"{key}={given[key]}: holds keys of its own; see conf/{config_name}.yaml")
        if isinstance(known, dict):
            _check_names(f"{key}.", map(str, given[key]), set(known))
    _check_node("", given)


def check_types(cfg: DictConfig, annotations: Mapping[str, Any]) -> None:
    """LabError where the value under a key, e.g. "preview.count", does not fit the annotation given for it."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for key, annotation in annotations.items():
        value = plain
        for part in key.split("."):
            value = value[part]
        _check_type(key, value, annotation)


def _check_node(path: str, node: Any) -> None:
    if isinstance(node, list):
        for number, child in enumerate(node):
            _check_node(f"{path}.{number}", child)
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        parameters = parameters_of(path, node["_target_"])
        names = [key for key in node if key != "_target_"]
        _check_names(f"{path}.", map(str, names), set(parameters))
        for name in names:
            _check_type(f"{path}.{name}", node[name], parameters[name].annotation)
    for key, child in node.items():
        _check_node(f"{path}.{key}".lstrip("."), child)


def parameters_of(path: str, target: Any) -> Mapping[str, inspect.Parameter]:
    """What the class takes that the `_target_` under `path` names; LabError unless it is one of the lab's."""
    return inspect.signature(_own_class(f"{path}._target_", target)).parameters


def _own_class(key: str, target: Any) -> type:
    """The class that a `_target_` names; LabError unless it was written for the lab: a config runs no other code."""
    found = None
    if str(target).startswith(OWN):
        module, _, name = str(target).rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise LabError(f"{key}={target}: there is no such class ({_one_line(error)})") from error
    # The name alone does not do: modules of the lab can reach `os.system` under names of their own.
    if not (inspect.isclass(found) and found.__module__.startswith(OWN)):
        raise LabError(f"{key}={target}: only classes of the lab can be built from a config")
    return found


def _check_names(prefix: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise LabError(f"{prefix}{name}: nothing reads this key; {_hint(prefix, name, known)}")


def _hint(prefix: str, name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(sorted(known))}"


def _check_type(path: str, value: Any, annotation: Any) -> None:
    if value == "":  # e.g. of a shell's variable that is not set
        raise LabError(f"{path}=: is empty; give it a value, or leave it out")
    if not fits(value, annotation):
        raise LabError(f"{path}={value}: must be {describe(annotation)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _chosen(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration with the options of groups that are asked for, and none of the keys."""
    groups = [one for one in overrides if (CONF / one.lstrip("+").partition("=")[0]).is_dir()]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        try:
            return hydra.compose(config_name, groups)
        except (HydraException, OmegaConfBaseException, ValueError):
            return hydra.compose(config_name)


def _elsewhere(cfg: Any, name: str, path: str = "") -> Iterator[str]:
    """Where in a configuration there are keys of this name."""
    for key in map(str, cfg) if isinstance(cfg, DictConfig) else ():
        if key == name:
            yield f"{path}{key}"
        yield from _elsewhere(cfg._get_node(key), name, f"{path}{key}.")


def _advice(error: Exception, config_name: str, overrides: Sequence[str] = ()) -> str:
    """Hydra's complaint on one line, with the nearest thing that exists."""
    text = _one_line(error)
    if isinstance(error, OverrideParseException) and "=" in error.override:
        example = """classes='["größe"]'""" if "[" in error.override else """run='"my runs/größe"'"""
        return f"{error.override}: quote what is more than English letters, digits and ._/-, e.g. {example}"
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
        cfg = _chosen(config_name, overrides)
        node = OmegaConf.select(cfg, parent) if parent else cfg
        siblings = [str(one) for one in node if one != "_target_"] if isinstance(node, DictConfig) else []
        if name in siblings and isinstance(node[name], DictConfig):
            return f"{key[1]}: is no group here, but holds keys of its own: {', '.join(map(str, node[name]))}"
        if name in siblings:  # it is there, but what is asked of it cannot be done
            return text
        if (CONF / name).is_dir():
            return f"{key[1]}: chosen by no default; write it with a plus, +{name}=..."
        others = list(_elsewhere(cfg, name))
        if others and not get_close_matches(name, siblings, n=1, cutoff=0.8):
            return f"{key[1]}: no such key; did you mean {' or '.join(others[:3])}?"
        return f"{key[1]}: no such key; {_hint(f'{parent}.'.lstrip('.'), name, siblings or [str(one) for one in cfg])}"
    if group := re.search(r"In '[^']*': (.+)", text):
        text = group[1]
    return text
