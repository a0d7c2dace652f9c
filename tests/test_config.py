"""Configurations: every file composes with every option, and what nothing reads is refused."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from lab.config import CONF, _compose, build, check_keys, check_types, compose
from lab.data import Petals
from lab.errors import LabError
from lab.train import check
from lab.training import TrainingSettings

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
GROUPS = ("data", "autoencoder", "conditioning", "model", "diffusion", "training", "sampling", "reconstruction")
OPTIONS = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
# What some options cannot do without.
NEEDED = {
    "data=folder": ["data.root=somewhere"],
    "model=unet_pixels": ["data.image_size=64", "model.patch_size=1"],
    "model=unet_latent": ["data.image_size=64", "model.patch_size=4"],
}
PRIMARY = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_runs_of_a_sweep_lie_in_folders_that_a_command_line_takes() -> None:
    swept = _compose("train", ["+experiment=class_cond", "seed=1", "training.lr=3e-4"], return_hydra_config=True)
    assert swept.hydra.sweep.subdir == "seed-1_training.lr-3e-4"
    run = f"{swept.hydra.sweep.dir}/{swept.hydra.sweep.subdir}"
    assert compose("sample", [f"run={run}"]).run == run == "results/class_cond/seed-1_training.lr-3e-4"


def one_line(error: pytest.ExceptionInfo[LabError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# -- what is there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRIMARY)
def test_every_primary_config_composes(name: str) -> None:
    check_keys(compose(name, []), name)


@pytest.mark.parametrize("number", range(max(map(len, OPTIONS.values()))))
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_can_be_built_with_every_option(experiment: str, number: int) -> None:
    """Formulas, loop, data and an empty network: all that can be told without reading a picture."""
    groups = dict(OPTIONS, autoencoder=["kl", "vq"] if experiment == "vae" else ["identity"])
    chosen = [f"{group}={names[number % len(names)]}" for group, names in groups.items()]
    needed = [override for option in chosen for override in NEEDED.get(option, [])]
    cfg = compose("train", [f"+experiment={experiment}", *chosen, *needed])
    check_keys(cfg, "train")
    check(cfg)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_says_how_it_is_run_and_has_a_folder_of_its_own(experiment: str) -> None:
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    assert text.startswith("# @package _global_\n#")
    assert compose("train", [f"+experiment={experiment}"]).name == experiment


def test_defaults_in_conf_name_every_knob_of_the_loop() -> None:
    cfg = compose("train", [])
    assert set(cfg.training) - {"_target_"} == set(TrainingSettings.__dataclass_fields__)


def test_values_on_the_command_line_arrive() -> None:
    cfg = compose("train", ["training.lr=1e-3", "training.betas=[0.8,0.9]", "data=petals", "data.size=64"])
    settings: TrainingSettings = build(cfg.training)
    assert (settings.lr, settings.betas) == (0.001, (0.8, 0.9))
    source = build(cfg.data)
    assert isinstance(source, Petals)
    assert source.sizes["train"] == 64


def test_composing_twice_is_composing_once() -> None:
    first, _ = compose("train", ["seed=3"]), compose("sample", ["run=here"])
    assert first == compose("train", ["seed=3"])


# -- what is not -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("+experiment=clas_cond", "experiment=clas_cond: no such option; did you mean class_cond? known: class_cond,"),
        ("experiment=class_cond", "experiment: chosen by no default; write it with a plus, +experiment=..."),
        ("data=petal", "data=petal: no such option; did you mean petals?"),
        ("data=xyz", "data=xyz: no such option; known: folder, oxford102, petals"),
        ("dta=petals", "dta: no such key; did you mean data?"),
        ("training.stpes=3", "training.stpes: no such key; did you mean training.steps?"),
        ("diffusion.schedule.timestep=3", "no such key; did you mean diffusion.schedule.timesteps?"),
        ("steps=3", "steps: no such key; did you mean training.steps or clip_training.steps?"),
        ("guidance_scale=3", "guidance_scale: no such key; did you mean sampling.guidance_scale?"),
        ("training.guidance_scale=3", "training.guidance_scale: no such key; did you mean sampling.guidance_scale?"),
        ("quite_another=3", "quite_another: no such key; known: autoencoder, clip_model,"),
        ("+nowhere=3x/y", "nowhere"),
        ("training.steps", "missing EQUAL"),
        ("training.steps=[", "training.steps=[: quote what is more than English letters"),
        ("name=größe", "name=größe: quote what is more than English letters, digits and ._/-"),
        ("preview.classes=[colt's foot]", """e.g. classes='["größe"]'"""),
        ("preview.classes=[rose (red)]", "preview.classes=[rose (red)]: quote"),
        ("training=3", "a config group takes the name of one of its options"),
        ("~data", "data.image_size"),
    ],
)
def test_what_cannot_be_composed_is_named_with_its_neighbour(override: str, told: str) -> None:
    with pytest.raises(LabError) as error:
        check_keys(compose("train", [override]), "train")
    assert told in one_line(error)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("+training.stpes=3", "training.stpes: nothing reads this key; did you mean training.steps?"),
        ("+sede=3", "sede: nothing reads this key; did you mean seed?"),
        ("+preview.clases=[1]", "preview.clases: nothing reads this key; did you mean preview.classes?"),
        ("+diffusion.schedule.steps=3", "diffusion.schedule.steps: nothing reads this key"),
        ("+model._partial_=true", "model._partial_: nothing reads this key"),
        ("training.steps=abc", "training.steps=abc: must be int"),
        ("training.steps=null", "training.steps=None: must be int"),
        ("training.lr_decay=1", "training.lr_decay=1: must be bool"),
        ("training.betas=[0.9]", "training.betas=[0.9]: must be a list of 2 float"),
        ("model.multipliers=3", "model.multipliers=3: must be a list of int"),
        ("diffusion.schedule=cosine", "diffusion.schedule=cosine: must be NoiseSchedule"),
        ("preview=3", "preview=3: holds keys of its own"),
        ("model.channels=${nowhere}", "Interpolation key 'nowhere' not found"),
    ],
)
def test_what_nothing_reads_or_takes_is_refused(override: str, told: str) -> None:
    with pytest.raises(LabError, match=re.escape(told)) as error:
        check_keys(compose("train", [override]), "train")
    one_line(error)


def test_values_outside_of_classes_are_checked_by_what_reads_them() -> None:
    cfg = compose("train", ["seed=abc", "preview.count=2.5"])
    check_types(cfg, {"preview.classes": Sequence[str] | None})
    with pytest.raises(LabError, match=r"^seed=abc: must be int"):
        check_types(cfg, {"seed": int})
    with pytest.raises(LabError, match=r"^preview\.count=2\.5: must be int"):
        check_types(cfg, {"preview.count": int})


# -- a config from elsewhere runs no other code ------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "torch.nn.Linear",
        "lab.config.importlib.import_module",  # names that modules of the lab use are not theirs
        "lab.cli.sys.exit",
        "lab.checkpoint._discard",  # a function of the lab, which deletes a folder
        "lab.runs.Path",
        "lab.config.DictConfig",
        "lab.nowhere.Thing",
        "lab.data.Nothing",
        "lab",
        "",
        7,
    ],
)
def test_only_classes_of_the_lab_are_built(target: Any) -> None:
    cfg = compose("train", [])
    cfg.sampling = OmegaConf.create({"_target_": target})
    with pytest.raises(LabError, match=r"^sampling\._target_="):
        check_keys(cfg, "train")


@pytest.mark.parametrize(
    "hidden", ["model.multipliers", "training.betas", "preview.classes", "conditioning.class_names"]
)
def test_nothing_is_built_inside_of_lists(hidden: str, tmp_path: Path) -> None:
    """Hydra builds whatever has a `_target_`, however deep it lies."""
    cfg = compose("train", [])
    evil = {"_target_": "os.mkdir", "path": str(tmp_path / "evil")}
    OmegaConf.update(cfg, hidden, [1, [evil]], force_add=True)
    with pytest.raises(LabError, match=re.escape(hidden)):
        check_keys(cfg, "train")
    assert not os.listdir(tmp_path)


# -- building ----------------------------------------------------------------------------------------


def node(**values: Any) -> DictConfig:
    return OmegaConf.create(values)


def test_a_users_mistake_inside_comes_out_as_itself() -> None:
    with pytest.raises(LabError, match=r"^training\.steps=0: use at least 1$"):
        build(node(_target_="lab.training.TrainingSettings", steps=0))
    schedule = {"_target_": "lab.diffusion.NoiseSchedule", "timesteps": 0}
    with pytest.raises(LabError, match=r"^diffusion\.schedule\.timesteps=0: use at least 1$"):
        build(node(_target_="lab.diffusion.Parameterization", schedule=schedule))


def test_values_that_a_class_chokes_on_are_one_line_too() -> None:
    with pytest.raises(LabError, match=r"lab\.networks\.UNet: cannot be built with these values .*dropout") as error:
        build(node(_target_="lab.networks.UNet", sample_size=16, dropout=7.0))
    one_line(error)


@pytest.mark.parametrize(
    ("config", "overrides", "told"),
    [
        ("train", ["+experiment=vae", "autoencoder.latent_chanels=8"], "did you mean autoencoder.latent_channels?"),
        ("train", ["conditioning=clip", "conditioning.neighbors=0"], "did you mean conditioning.neighbours?"),
        (
            "train",
            ["conditioning=clip", "conditioning.tokens=8"],
            "conditioning.tokens: no such key; known: class_names",
        ),
        ("train", ["data=petals", "data.sise=100"], "did you mean data.size?"),
        ("sample", ["sampling.sampler=ddim"], "sampling.sampler: no such key; did you mean sampler?"),
        ("evaluate", ["data=petals"], "data: is no group here, but holds keys of its own: root, cache_dir"),
    ],
)
def test_neighbours_are_looked_for_among_the_options_that_were_chosen(
    config: str, overrides: list[str], told: str
) -> None:
    with pytest.raises(LabError) as error:
        compose(config, overrides)
    assert told in str(error.value) and "_target_" not in str(error.value)


def test_an_empty_value_is_refused() -> None:
    with pytest.raises(LabError, match="out=: is empty; give it a value, or leave it out"):
        check_types(OmegaConf.create({"out": ""}), {"out": str | None})
