"""lab.train: every experiment trains, the seed decides it, and a run that goes on is the run in one go."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from trained import VAE, rows, same, tensors

import lab
import lab.train
from lab import checkpoint
from lab.clip import load_clip
from lab.config import CONF
from lab.export import export
from lab.render import grid, read_provenance
from lab.runs import read_config

Command = Callable[..., tuple[int, str]]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
FORMULAS = sorted(path.stem for path in (CONF / "diffusion").glob("*.yaml"))
pytestmark = pytest.mark.usefixtures("elsewhere")


def paint_folder(root: str) -> None:
    """Two classes of eight grey pictures."""
    for name in ("rose", "tulip"):
        (Path(root) / name).mkdir(parents=True)
        for number in range(8):
            picture = np.full((20, 20, 3), 30 * number, np.uint8)
            Image.fromarray(picture).save(Path(root) / name / f"{number}.png")


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


@pytest.mark.slow
def test_a_clip_run_whose_data_moved_keeps_its_clip(run_command: Command, tiny_settings: tuple[str, ...]) -> None:
    """The folder has another name, and a picture more: the network goes on with the vectors that it learned from."""
    paint_folder("mine")
    of_a_folder = [s for s in tiny_settings if not s.startswith(("data=", "data.size", "data.held_out_size"))]
    of_a_folder += ["+experiment=clip_cond", "data=folder", "hydra.run.dir=run"]
    code, said = run_command(lab.train.main, *of_a_folder, "data.root=mine", "training.steps=1")
    assert code == 0, said
    before = read_config(Path("run")).conditioning.fingerprint
    stamp = (Path("run") / "clip" / "model.safetensors").read_bytes()
    Path("mine").rename("photos")
    Image.fromarray(np.full((20, 20, 3), 77, np.uint8)).save(Path("photos") / "rose" / "more.png")
    code, said = run_command(lab.train.main, *of_a_folder, "data.root=photos", "training.steps=2")
    assert code == 0, said
    assert "goes on with photos" in said and "training flower_clip" not in said
    assert (Path("run") / "clip" / "model.safetensors").read_bytes() == stamp
    assert read_config(Path("run")).conditioning.fingerprint == before


@pytest.mark.slow
def test_a_clip_run_that_goes_on_keeps_its_clip(clip_run: Path, train: Callable[..., Path]) -> None:
    run = train("run", "+experiment=clip_cond", "training.steps=3")
    stamp = (run / "clip" / "model.safetensors").stat().st_mtime_ns
    train("run", "+experiment=clip_cond", "training.steps=6")
    assert (run / "clip" / "model.safetensors").stat().st_mtime_ns == stamp
    assert same(tensors(run), tensors(clip_run))


@pytest.mark.slow
def test_another_clip_in_its_place_is_refused(
    clip_run: Path, refused: Callable[..., str], train: Callable[..., Path]
) -> None:
    run = Path(shutil.copytree(clip_run, "run"))
    shutil.rmtree(run / "clip")
    shutil.copytree(train("other", "+experiment=flower_clip", "training.steps=1") / "clip", run / "clip")
    before = (run / "config.yaml").read_bytes()
    line = refused("run", "+experiment=clip_cond", "training.steps=9")
    assert line.startswith("error: conditioning.fingerprint=")
    assert "was started with" in line
    assert (run / "config.yaml").read_bytes() == before


def test_a_setting_that_changed_is_named_with_both_values(class_run: Path, refused: Callable[..., str]) -> None:
    shutil.copytree(class_run, "run")
    changed = ["+experiment=class_cond", "conditioning.dim=8", "training.lr=0.1"]
    line = refused("run", *changed)
    assert line.startswith("error: training.lr=0.1: the run in ")
    assert "was started with 0.0004; use that to go on with it, or another hydra.run.dir" in line


def test_a_reference_clip_of_the_same_set_is_used(clip_run: Path, train: Callable[..., Path]) -> None:
    shutil.copytree(clip_run / "clip", Path("reference") / "flower_clip_small")
    run = train("run", "+experiment=clip_cond", "training.steps=6")
    assert same(tensors(run), tensors(clip_run))
    # What it has learned from stays with it when another is kept.
    assert {path.name for path in (run / "clip").iterdir()} == {"model.safetensors", "open_clip_config.json"}
    before = lab.load(run).condition(["a red flower"]).vector
    shutil.rmtree("reference")
    assert torch.equal(lab.load(run).condition(["a red flower"]).vector, before)


def test_a_folder_that_is_called_like_the_reference_clips_set_has_a_clip_of_its_own(
    clip_run: Path, run_command: Command, tiny_settings: tuple[str, ...]
) -> None:
    shutil.copytree(clip_run / "clip", Path("reference") / "flower_clip_small")
    paint_folder("petals")
    of_a_folder = [s for s in tiny_settings if not s.startswith(("data=", "data.size", "data.held_out_size"))]
    of_a_folder += ["data=folder", "data.root=petals", "training.steps=1", "hydra.run.dir=run"]
    code, said = run_command(lab.train.main, "+experiment=clip_cond", *of_a_folder)
    assert code == 0, said
    assert (Path("run") / "clip").is_dir()


def test_the_clip_has_the_averaged_weights(train: Callable[..., Path]) -> None:
    """Those that its previews measured."""
    run = train("run", "+experiment=flower_clip", "training.steps=3")
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    clip, average, raw = load_file(run / "clip" / "model.safetensors"), found.tensors("weights"), found.tensors("raw")
    for key, value in clip.items():
        if "running" not in key and "batches" not in key:  # batch normalisation's, measured anew
            assert torch.equal(value, average[f"network.{key}"].to(value.dtype))
    assert not torch.equal(clip["logit_scale"], raw["network.logit_scale"].to(clip["logit_scale"].dtype))


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


def test_an_autoencoder_does_not_go_on_by_the_eyes_of_another_clip(
    clip_run: Path, train: Callable[..., Path], refused: Callable[..., str]
) -> None:
    """The kept CLIP, whose features are compared, may have become another meanwhile."""
    kept = Path("reference") / "flower_clip"
    shutil.copytree(clip_run / "clip", kept)
    seen = ["+experiment=vae", "data.image_size=32", *VAE, "reconstruction.perceptual=flower_clip"]
    run = train("run", *seen, "training.steps=1")
    assert read_config(run).reconstruction.fingerprint == load_clip(pretrained=str(kept)).fingerprint
    train("run", *seen, "training.steps=2")
    weights = load_file(kept / "model.safetensors")
    moved = {key: tensor + 0.01 if "visual" in key else tensor for key, tensor in weights.items()}
    save_file(moved, kept / "model.safetensors")
    assert "reconstruction.fingerprint=" in refused("run", *seen, "training.steps=3")
