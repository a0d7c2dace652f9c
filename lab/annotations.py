"""Values from a config held against the annotations of what reads them."""

import inspect
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

UNIONS = (types.UnionType, Union)
LISTS = (Sequence, list, tuple)


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value as YAML gives it can stand for the annotated type; an int passes for a float.

    A class of the lab takes a node of the config. True for annotations that no config can name.
    """
    origin, options = get_origin(annotation), get_args(annotation)
    if origin in UNIONS:
        return any(fits(value, option) for option in options)
    if origin is Literal:
        return value in options
    if origin in LISTS:
        if not isinstance(value, list) or (origin is tuple and Ellipsis not in options and len(value) != len(options)):
            return False
        return all(fits(item, options[0]) for item in value)
    if annotation is float:
        return type(value) in (int, float)
    if annotation in (int, str, bool, types.NoneType):
        return type(value) is annotation
    of_the_lab = inspect.isclass(annotation) and annotation.__module__.startswith("lab.")
    return isinstance(value, dict) if of_the_lab else True


def describe(annotation: Any) -> str:
    """What a user is told to give: "int or null", "a list of str"."""
    origin, options = get_origin(annotation), get_args(annotation)
    if origin in UNIONS:
        return " or ".join(describe(option) for option in options)
    if origin is Literal:
        return " or ".join(map(str, options))
    if origin in LISTS:
        count = f"{len(options)} " if origin is tuple and Ellipsis not in options else ""
        return f"a list of {count}{describe(options[0])}"
    return "null" if annotation is types.NoneType else str(getattr(annotation, "__name__", annotation))
