"""lab.train: every experiment trains, the seed decides it, and a run that goes on is the run in one go."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from trained import VAE, rows, same, tensors

import lab
import lab.train
from lab import checkpoint
from lab.config import CONF
from lab.export import export
from lab.render import grid, read_provenance
from lab.runs import read_config

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
FORMULAS = sorted(path.stem for path in (CONF / "diffusion").glob("*.yaml"))
pytestmark = pytest.mark.usefixtures("elsewhere")


# -- every experiment --------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_looks_and_saves(
    experiment: str, train: Callable[..., Path], clip_run: Path, vae_run: Path
) -> None:
    """Two steps on tiny petals. The CLIP is the one of `clip_run`: another test trains it."""
    shutil.copytree(clip_run / "clip", Path("reference") / "flower_clip_small")
    quick = ["training.steps=2", "training.preview_every=2", "preview.classes=null"]
    if experiment == "vae":
        quick += VAE
    if experiment == "vae_decoder":
        quick += ["reconstruction.perceptual=none"]
    if experiment.startswith("latent") or experiment == "vae_decoder":
        quick += [f"latents.run={vae_run}", "data.image_size=32"]
    run = train("run", f"+experiment={experiment}", *quick, "preview.count=1")
    assert [row["step"] for row in rows(run)] == ["1", "2"]
    assert all(float(row["loss"]) > 0 for row in rows(run))
    assert (run / "loss.png").is_file()
    assert checkpoint.latest(run / "checkpoints").step == 2  # type: ignore[union-attr]
    cfg = read_config(run)
    task = cfg.task
    assert (run / "samples" / "step_0000002.png").is_file() == (task not in ("flower_clip", "judge"))
    hears = task == "diffusion" and "clip" in cfg.conditioning["_target_"].lower()
    assert (run / "clip").is_dir() == (hears or task == "flower_clip")
    if task == "diffusion":  # how much better it knows what it has seen
        assert float(rows(run)[-1]["seen_loss"]) > 0
        rated = checkpoint.best(run / "checkpoints").state["best"]
        assert rated == pytest.approx(float(rows(run)[-1]["held_out_loss"])) and rated > 0


@pytest.mark.parametrize("diffusion", FORMULAS)
def test_every_formula_trains_without_conditions(diffusion: str, train: Callable[..., Path]) -> None:
    options = [f"diffusion={diffusion}", "conditioning=unconditional", "training.class_balanced=true"]
    run = train("run", *options, "training.steps=2", "training.preview_every=2")
    assert len(rows(run)) == 2
    assert read_provenance(run / "samples" / "step_0000002.png")["step"] == 2


# -- the seed ----------------------------------------------------------------------------------------


def test_the_seed_decides_a_run(train: Callable[..., Path]) -> None:
    """Down to the first embedding: whatever drew random numbers before does not matter."""
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(made))
        made.append(train(name, "+experiment=class_cond", "training.steps=3", f"seed={seed}"))
    one, again, other = map(tensors, made)
    assert same(one, again)
    assert rows(made[0]) == rows(made[1])
    assert all(not torch.equal(one[key], other[key]) for key in one if key.endswith("embedding.weight"))


# -- going on ----------------------------------------------------------------------------------------


def test_a_class_run_that_goes_on_is_the_run_in_one_go(class_run: Path, train: Callable[..., Path]) -> None:
    """`class_run` took six steps at once."""
    settings = ["+experiment=class_cond", "conditioning.dim=8"]
    run = train("run", *settings, "training.steps=4")
    shutil.rmtree(run / "checkpoints" / "step_00000004")  # as if killed: what follows the third step is lost
    train("run", *settings, "training.steps=6")
    assert same(tensors(run), tensors(class_run))
    assert rows(run) == rows(class_run)


def test_a_kept_copy_can_be_trained_on(class_run: Path, train: Callable[..., Path], tmp_path: Path) -> None:
    """`lab.export`'s copy of `class_run` in place of the run: its log goes on, and it is a whole run again."""
    export(class_run, tmp_path / "run")
    copied = lab.load(tmp_path / "run").state_dict()
    run = train("run", "+experiment=class_cond", "conditioning.dim=8", "training.steps=7")
    assert rows(run)[:6] == rows(class_run)
    assert [row["step"] for row in rows(run)] == [str(step) for step in range(1, 8)]
    assert {name.split("/")[0] for name in tensors(run)} == {"raw", "weights", "optimizer"}
    torch.testing.assert_close(lab.load(run).state_dict(), copied, rtol=0, atol=3e-4)  # a step of a rate of 1.3e-4


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_copies_of_judges_cannot_go_on_and_are_left_alone(
    judge_run: Path, tmp_path: Path, refused: Callable[..., str], resume: str
) -> None:
    export(judge_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    line = refused("run", "+experiment=judge", "training.steps=9", f"resume={resume}")
    assert "run holds a copy of a CLIP or judge, which cannot go on" in line
    assert {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()} == before


def test_fewer_steps_than_a_run_has_had_are_refused(class_run: Path, refused: Callable[..., str]) -> None:
    run = Path(shutil.copytree(class_run, "run"))
    before = (run / "config.yaml").read_bytes()
    line = refused("run", "+experiment=class_cond", "conditioning.dim=8", "training.steps=5")
    assert "training.steps=5: " in line and "has had 6 already" in line
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(("conditioning", "tiles"), [("unconditional", 16), ("class", 2)])
def test_what_shows_one_thing_alone_shows_more_of_it(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, conditioning: str, tiles: int
) -> None:
    """Of a class as many as were asked for."""
    shown: list[int] = []

    def noted(samples: torch.Tensor, **layout: Any) -> Image.Image:
        shown.append(len(samples))
        return grid(samples, **layout)

    monkeypatch.setattr(lab.training.diffusion, "grid", noted)
    classes = ["preview.classes=[0,1]"] if conditioning == "class" else []
    train("run", f"conditioning={conditioning}", "training.steps=1", "training.preview_every=1", *classes)
    assert shown == [tiles]


def test_a_setting_that_changed_is_named_with_both_values(class_run: Path, refused: Callable[..., str]) -> None:
    shutil.copytree(class_run, "run")
    changed = ["+experiment=class_cond", "conditioning.dim=8", "training.lr=0.1"]
    line = refused("run", *changed)
    assert line.startswith("error: training.lr=0.1: the run in ")
    assert "was started with 0.0004; use that to go on with it, or another hydra.run.dir" in line


# -- previews that cannot be, told before training ---------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["preview.classes=[nettle]"], "preview: classes=nettle: no such class"),
        (["preview.prompts=[nettle]"], "preview: this run is class-conditional"),
        (["preview.classes=[0]", "preview.prompts=[a]"], "preview: prompts and classes are given together"),
        (["conditioning=unconditional", "preview.classes=[0]"], "preview: this run is unconditional"),
        (["preview.count=0"], "preview.count=0: use at least 1"),
        (["sampling.sampler=dimm"], "sampling.sampler=dimm: use one of"),
        (["sampling.num_inference_steps=1001"], "sampling.num_inference_steps=1001: use at most"),
    ],
)
def test_previews_are_checked_before_training(overrides: list[str], told: str, refused: Callable[..., str]) -> None:
    assert told in refused("run", "training.preview_every=1000", *overrides)
    assert not Path("run").exists()


def test_no_previews_need_no_classes(train: Callable[..., Path]) -> None:
    train("run", "training.steps=1", "preview.classes=[nettle]")


# -- resume ------------------------------------------------------------------------------------------


def test_a_run_may_be_refused_or_demanded(
    class_run: Path, tmp_path: Path, refused: Callable[..., str], train: Callable[..., Path]
) -> None:
    setup = ("+experiment=class_cond", "conditioning.dim=8", "training.steps=6")
    assert "resume=never" in refused(str(class_run), *setup, "resume=never")
    assert "resume=always" in refused("none", *setup, "resume=always")
    assert not (tmp_path / "none").exists()
    train(str(class_run), *setup, "resume=always")
    train("new", *setup, "resume=never")


# -- full disks --------------------------------------------------------------------------------------


def kib(run: Path, *names: str) -> int:
    """What parts of a run take on a disk of 4 KiB blocks."""
    files = [path for name in names for path in run.glob(name) if path.is_file()]
    return sum(-(-path.stat().st_size // 4096) * 4 for path in files)


def test_a_full_disk_while_saving(
    class_run: Path, small_disk: Callable[[int], Path], refused: Callable[..., str], train: Callable[..., Path]
) -> None:
    """Room for a checkpoint and a half."""
    run = small_disk(int(1.5 * kib(class_run, "checkpoints/step_00000003/*")) + 40)
    settings = ["+experiment=class_cond", "conditioning.dim=8", "training.steps=6"]
    line = refused(str(run), *settings)
    assert str(run / "checkpoints" / "step_00000006") in line
    assert "No space left on device" in line
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_00000003"]
    checkpoint.verify(run / "checkpoints" / "step_00000003")
    copy = shutil.copytree(run, "copy")
    assert same(tensors(train(str(copy), *settings)), tensors(class_run))  # with room, it goes on as if nothing was


def test_a_full_disk_while_looking(
    class_run: Path, small_disk: Callable[[int], Path], refused: Callable[..., str]
) -> None:
    """Room for a checkpoint, but not for a sheet of 32 samples beside it."""
    run = small_disk(kib(class_run, "checkpoints/step_00000003/*") + 48)
    settings = ["+experiment=class_cond", "conditioning.dim=8", "training.steps=9", "training.preview_every=4"]
    line = refused(str(run), *settings)
    assert str(run / "samples" / "step_0000004.png") in line
    assert "No space left on device" in line
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    assert found.step == 3


def test_a_full_disk_before_anything_is_written(small_disk: Callable[[int], Path], refused: Callable[..., str]) -> None:
    disk = small_disk(4)
    (disk / "full").write_bytes(bytes(4096))
    assert "No space left on device" in refused(str(disk / "run"), "conditioning=unconditional", "training.steps=1")
    assert [path.name for path in disk.iterdir()] == ["full"]
