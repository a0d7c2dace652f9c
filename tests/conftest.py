"""Models so small that sampling from them takes milliseconds, and runs that train in a second."""

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers with all cores each would slow each other tenfold
    os.environ["OMP_NUM_THREADS"] = "1"

import torch

from lab.autoencoders import Identity
from lab.conditioning import ClassEmbedding, Conditioner
from lab.diffusion import NoiseSchedule, Parameterization
from lab.model import DiffusionModel
from lab.networks import UNet
from lab.sampling import SamplingDefaults

CLASSES = ("rose", "daisy", "tulip")


def build(
    prediction_type: str = "v", conditioner: Conditioner | None = None, autoencoder: Identity | None = None
) -> DiffusionModel:
    """Latents of 8x8, three classes, and every weight drawn anew: condition, time and noise all matter."""
    autoencoder = autoencoder or Identity()
    conditioner = conditioner or ClassEmbedding(6, class_names=CLASSES)
    network = UNet(
        in_channels=autoencoder.latent_channels,
        sample_size=8,
        condition_dim=conditioner.dim,
        channels=8,
        multipliers=(1, 2),
        blocks=1,
        linear_attention=(8,),
        full_attention=(4,),
        head_dim=8,
    )
    draw = torch.Generator().manual_seed(0)
    for module, scale in ((network, 0.15), (conditioner, 2.0)):
        for parameter in module.parameters():
            parameter.data = scale * torch.randn(parameter.shape, generator=draw)
    formulas = Parameterization(NoiseSchedule("cosine", 100), prediction_type)
    defaults = SamplingDefaults(num_inference_steps=6, guidance_scale=2.0)
    size = 8 * autoencoder.factor
    return DiffusionModel(network, conditioner, autoencoder, formulas, size, defaults).eval()


@pytest.fixture
def tiny_model() -> Callable[..., DiffusionModel]:
    """`build` above: tiny_model(prediction_type="v", conditioner=None, autoencoder=None)."""
    return build


@pytest.fixture
def model() -> DiffusionModel:
    """A tiny class-conditional model that predicts v."""
    return build()


# -- runs: the entry points as a shell would call them, without a new process each -------------------

Command = Callable[..., tuple[int, str]]
TINY = (
    "data=petals",
    "data.image_size=16",
    "data.size=64",
    "data.held_out_size=40",
    "model.patch_size=2",
    "model.channels=8",
    "model.multipliers=[1,2]",
    "model.blocks=1",
    "model.linear_attention=[8]",
    "model.full_attention=[4]",
    "model.head_dim=8",
    "model.embedding_dim=16",
    "training.batch_size=8",
    "training.lr_warmup=2",
    "training.log_every=1",
    "training.preview_every=0",
    "training.save_every=3",
    "training.ema_decay=0.9",
    "sampling.num_inference_steps=3",
    "clip_model=flower_clip_small",
    "clip_training.steps=2",
    "clip_training.batch_size=8",
    "clip_training.preview_every=0",
)


def call(main: Callable[[], None], *overrides: str) -> tuple[int, str]:
    """Exit code and standard error of an entry point; what is no user's mistake comes out as it is."""
    root, own = logging.getLogger(), logging.getLogger("lab")
    handlers, levels = root.handlers[:], (root.level, own.level)
    said = io.StringIO()
    try:
        with mock.patch.object(sys, "argv", ["lab", *overrides]), contextlib.redirect_stderr(said):
            main()
        return 0, said.getvalue()
    except SystemExit as stop:
        return (stop.code if isinstance(stop.code, int) else 1), said.getvalue()
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])


@pytest.fixture(scope="session")
def run_command() -> Command:
    """`call` above: run_command(lab.train.main, "seed=1") -> (0, "step 1 ...")."""
    return call


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Overrides for networks, data and a CLIP so small that a run takes a second; the data are shared."""
    return (*TINY, f"data.cache_dir={tmp_path_factory.mktemp('datasets')}")


def _trained(folder: Path, settings: tuple[str, ...], *overrides: str) -> Path:
    import lab.train

    code, said = call(lab.train.main, *settings, "training.steps=6", f"hydra.run.dir={folder}", *overrides)
    assert code == 0, said
    return folder


@pytest.fixture(scope="session")
def class_run(tmp_path_factory: pytest.TempPathFactory, tiny_settings: tuple[str, ...]) -> Path:
    """A class-conditional run of six steps, saved after three and six. To be read, not written to."""
    folder = tmp_path_factory.mktemp("runs") / "class"
    return _trained(folder, tiny_settings, "+experiment=class_cond", "conditioning.dim=8")


@pytest.fixture(scope="session")
def clip_run(tmp_path_factory: pytest.TempPathFactory, tiny_settings: tuple[str, ...]) -> Path:
    """A CLIP-conditional run of six steps with a CLIP of its own. To be read, not written to."""
    return _trained(tmp_path_factory.mktemp("runs") / "clip", tiny_settings, "+experiment=clip_cond")


@pytest.fixture(scope="session")
def vae_run(tmp_path_factory: pytest.TempPathFactory, tiny_settings: tuple[str, ...]) -> Path:
    """An autoencoder of 32 px after six steps, factor 4. To be read, not written to."""
    small = ("autoencoder.channels=16", "autoencoder.blocks=1", "reconstruction.perceptual=none", "data.image_size=32")
    return _trained(tmp_path_factory.mktemp("runs") / "vae", tiny_settings, "+experiment=vae", *small)


@pytest.fixture(scope="session")
def latent_run(tmp_path_factory: pytest.TempPathFactory, tiny_settings: tuple[str, ...], vae_run: Path) -> Path:
    """A class-conditional run of six steps in the latents of `vae_run`. To be read, not written to."""
    settings = ("+experiment=latent_class_cond", "conditioning.dim=8", "data.image_size=32", f"latents.run={vae_run}")
    return _trained(tmp_path_factory.mktemp("runs") / "latent", tiny_settings, *settings)


@pytest.fixture(scope="session")
def judge_run(tmp_path_factory: pytest.TempPathFactory, tiny_settings: tuple[str, ...]) -> Path:
    """A judge of six steps. To be read, not written to."""
    return _trained(tmp_path_factory.mktemp("runs") / "judge", tiny_settings, "+experiment=judge")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to train in, without reference models."""
    monkeypatch.chdir(tmp_path)
    from lab import runs

    monkeypatch.setattr(runs, "REFERENCE", tmp_path / "reference")


@pytest.fixture
def train(run_command: Command, tiny_settings: tuple[str, ...], tmp_path: Path) -> Callable[..., Path]:
    """train("name", "training.steps=3", ...): the folder of a tiny run that went well."""

    def train(name: str, *overrides: str) -> Path:
        code, said = run_command(_train_main(), *tiny_settings, f"hydra.run.dir={tmp_path / name}", *overrides)
        assert code == 0, said
        return tmp_path / name

    return train


@pytest.fixture
def refused(run_command: Command, tiny_settings: tuple[str, ...]) -> Callable[..., str]:
    """The one line with which a tiny run ends that cannot be."""

    def refused(name: str, *overrides: str) -> str:
        code, said = run_command(_train_main(), *tiny_settings, f"hydra.run.dir={name}", *overrides)
        assert code == 2, said
        (line,) = (line for line in said.splitlines() if line.startswith("error: "))
        assert "Traceback" not in said
        return line

    return refused


def _train_main() -> Callable[[], None]:
    import lab.train

    return lab.train.main


@pytest.fixture
def copied(class_run: Path, tmp_path: Path) -> Path:
    """A copy of `class_run` to do things to."""
    return Path(shutil.copytree(class_run, tmp_path / "copy"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """small_disk(kib): an empty folder on a disk of that size; skipped where this user may not mount one."""
    folders: list[Path] = []

    def mount(kib: int) -> Path:
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount a tmpfs")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)
