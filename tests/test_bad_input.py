"""A user's mistake: one line on stderr that names the key or file and the remedy, exit code 2, nothing written."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants as hub
from PIL import Image
from torchvision.datasets import Flowers102

import lab.sample
import lab.train

TINY = [
    "data=petals",
    "data.size=80",
    "data.held_out_size=40",
    "data.image_size=16",
    "model=unet_small",
    "model.patch_size=2",
    "model.channels=8",
    "model.head_dim=8",
    "model.embedding_dim=16",
    "model.multipliers=[1,2]",
    "model.linear_attention=[8]",
    "model.full_attention=[4]",
    "training.batch_size=8",
    "training.steps=2",
    "training.log_every=1",
    "training.preview_every=0",
    "training.save_every=1",
    "sampling.num_inference_steps=2",
]
Command = Callable[..., str]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWERS102_ROOT", raising=False)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(Flowers102, "download", refuse)


def train(*overrides: str) -> None:
    sys.argv = ["lab.train", *overrides]
    lab.train.main()


def sample(*overrides: str) -> None:
    sys.argv = ["lab.sample", *overrides]
    lab.sample.main()


def files(folder: Path) -> set[Path]:
    """All that is there but the cache of decoded pictures, which the next run will use."""
    return {path for path in folder.rglob("*") if "cache" not in path.parts and path.name != "datasets"}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs a command that must fail; gives its one line."""
    monkeypatch.setattr(sys, "argv", [])

    def run(command: Callable[..., None], *overrides: str) -> str:
        before = files(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            command(*overrides)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert stop.value.code == 2
        assert len(lines) == 1
        assert files(tmp_path) == before, "something was written"
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["+experiment=clas_cond"], r"experiment=clas_cond: .*did you mean class_cond\?"),
        (["training.stpes=3"], r"training\.stpes: .*did you mean training\.steps\?"),
        (["+training.stpes=3"], r"training\.stpes: .*did you mean training\.steps\?"),
        (["+sed=3"], r"sed: .*did you mean seed\?"),
        (["data=petal"], r"data=petal: .*did you mean petals\?"),
        (["training.steps=abc"], r"training\.steps=abc: must be int"),
        (["training.steps=0"], r"training\.steps=0: use at least 1"),
        (["training.steps=-5"], r"training\.steps=-5: use at least 1"),
        (["training.lr=0"], r"training\.lr=0"),
        (["data.image_size=65"], r"sample_size=65: .*multiples of 16.*data\.image_size"),
        (["data.image_size=0"], r"image_size=0"),
        (["model.full_attention=[5]"], r"model\.full_attention=\[5\]: .*\[16, 8, 4\]"),
        (["diffusion=eps", "diffusion.schedule.zero_terminal_snr=true"], r"prediction_type=eps.*use v or x0"),
        (["model._target_=os.system"], r"model\._target_=os\.system: only classes of the lab"),
        (["task=vae"], r"task=vae: use one of diffusion, autoencoder, flower_clip"),
        (["training.batch_size"], r"training\.batch_size"),
        (
            ["task=judge", "training.accumulation=2"],
            r"training\.accumulation=2: a judge needs its batches whole",
        ),
        (["clip_training.lr=0"], r"clip_training\.lr=0"),
        (["training.accumulation=3"], r"training\.accumulation=3: must divide training\.batch_size=64"),
        (["conditioning=clip", "conditioning.model=ViT-B-32"], r"model=ViT-B-32: name its weights too, .*pretrained="),
        ([], r"data\.root.*FLOWERS102_ROOT.*data=petals"),
    ],
)
def test_training_refuses(overrides: list[str], says: str, refused: Command) -> None:
    assert re.search(says, refused(train, "+experiment=class_cond", *overrides))


def test_clip_weights_out_of_reach(refused: Command) -> None:
    pretrained = ["conditioning.model=ViT-B-32", "conditioning.pretrained=laion2b_s34b_b79k"]
    line = refused(train, "+experiment=clip_cond", *TINY, *pretrained)
    assert "pretrained=laion2b_s34b_b79k" in line
    assert "local weights file" in line


def test_a_class_to_look_at_is_checked_before_a_clip_is_trained(refused: Command) -> None:
    line = refused(train, "+experiment=clip_cond", *TINY, "training.preview_every=1", "preview.classes=[nettle]")
    assert "classes=nettle: no such class; nearest:" in line


def test_folders(refused: Command, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    arguments = ["+experiment=class_cond", *TINY[4:], "data=folder", "data.image_size=16", f"data.root={folder}"]
    assert str(folder) in refused(train, *arguments)
    for name in ("roses", "tulips"):
        (folder / name).mkdir()
    Image.new("RGB", (20, 20), "red").save(folder / "roses" / "a.png")
    assert "tulips" in refused(train, *arguments)
    (folder / "tulips" / "b.jpg").write_bytes(b"no picture")
    assert "b.jpg" in refused(train, *arguments)


@pytest.fixture
def class_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A class-conditional run of two steps, with a checkpoint of each."""
    monkeypatch.setattr(sys, "argv", [])
    run = tmp_path / "run"
    train("+experiment=class_cond", *TINY, f"hydra.run.dir={run}")
    return run


def test_what_a_run_cannot_do(class_run: Path, refused: Command, capsys: pytest.CaptureFixture[str]) -> None:
    run = f"run={class_run}"
    assert "no config.yaml" in refused(sample, f"run={class_run.parent / 'nope'}")
    assert "run=..." in refused(sample)
    assert re.search(r"classes=five round red petal: .*five round red petals", _nearest(refused, run))
    assert "class-conditional" in refused(sample, run, "prompts=[a red flower]")
    assert "classes=99" in refused(sample, run, "classes=[99]")
    assert "steps=0" in refused(sample, run, "classes=[1]", "num_inference_steps=0")
    assert "multiples of" in refused(sample, run, "classes=[1]", "height=17")
    assert "sampler=dimm" in refused(sample, run, "classes=[1]", "sampler=dimm")
    assert "did you mean count?" in refused(sample, run, "cuont=2")
    assert "training.lr=0.1" in refused(
        train, "+experiment=class_cond", *TINY, f"hydra.run.dir={class_run}", "training.lr=0.1"
    )
    # the newest checkpoint damaged: the one before it is used, with a warning; both damaged: an error
    checkpoints = sorted((class_run / "checkpoints").glob("step_*"))
    assert len(checkpoints) == 2
    (checkpoints[1] / "weights.safetensors").write_bytes(b"x")
    assert lab.load(class_run).provenance["step"] == 1
    assert "weights.safetensors: has 1 bytes" in capsys.readouterr().err
    (checkpoints[0] / "manifest.json").unlink()
    assert "damaged" in refused(sample, run, "classes=[1]")
    shutil.rmtree(class_run / "checkpoints")
    assert "no checkpoint" in refused(sample, run, "classes=[1]")


def _nearest(refused: Command, run: str) -> str:
    return refused(sample, run, "classes=[five round red petal]")
