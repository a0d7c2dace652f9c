"""A command line that is printed does the same when it is typed."""

import shlex
from typing import Any

import pytest

from lab.commands import command_line
from lab.config import compose


def test_what_is_as_always_is_not_said() -> None:
    assert command_line("experiments.cfg_sweep", compose("cfg_sweep", [])) == "python -m experiments.cfg_sweep"
    said = command_line("experiments.cfg_sweep", compose("cfg_sweep", ["run=results/a", "points=21", "count=4"]))
    assert said == "python -m experiments.cfg_sweep run=results/a points=21"


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "results/class cond", "classes": ["rose", "bird of paradise", 3], "guidance_interval": [0.25, 1]},
        {
            "prompts": ['a "red" flower, big', "it's blue", "null", "7", "a=b"],
            "first": -2.5,
            "measures": ["saturation"],
        },
        {"run": "blumen/röslein", "classes": ["café", "größe", "роза"], "judge": ".5", "out": "ends\\"},
        {"run": "./here", "judge": "../there", "out": "/größe", "classes": ["colt's foot", 'a\\"b']},
        {"run": "$HOME/runs", "values": [1e-05, 2], "device": "cuda:1", "out": "back\\slash"},
    ],
)
def test_it_asks_for_the_same_when_it_is_typed(changes: dict[str, Any]) -> None:
    cfg = compose("cfg_sweep", [])
    for key, value in changes.items():
        cfg[key] = value
    typed = shlex.split(command_line("experiments.cfg_sweep", cfg))
    assert typed[:3] == ["python", "-m", "experiments.cfg_sweep"]
    assert compose("cfg_sweep", typed[3:]) == cfg


def test_keys_below_others_are_named_in_full() -> None:
    said = command_line("lab.evaluate", compose("evaluate", ["data.root=/data"]))
    assert said == "python -m lab.evaluate data.root=/data"
