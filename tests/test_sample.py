"""lab.sample: the pictures of lab.load(...).sample as files that say how they were made."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lab
import lab.evaluate
import lab.sample
import lab.train
from lab.conditioning.clip import tell_texts_by
from lab.errors import LabError
from lab.render import read_provenance
from lab.sample import file_name

Command = Callable[..., tuple[int, str]]
ROSE = "five round red petals"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.png") if path.name != "grid.png")


def pixels(path: Path) -> Any:
    """(H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_files_are_the_samples(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    asked = ["count=2", "seed=5", "guidance_scale=2", "num_inference_steps=4", "sampler=ddpm", "out=made"]
    code, said = run_command(lab.sample.main, f"run={class_run}", f"classes=[{ROSE},3]", *asked)
    assert (code, said) == (0, "4 samples in made\n")
    files = pictures(tmp_path / "made")
    named = str(lab.load(class_run).conditioner.class_names[3]).replace(" ", "-")  # type: ignore[index]
    assert [file.name for file in files] == [
        "0000_five-round-red-petals_seed5.png",
        "0001_five-round-red-petals_seed5.png",
        f"0002_{named}_seed5.png",
        f"0003_{named}_seed5.png",
    ]
    model = lab.load(class_run)
    expected = model.sample(
        classes=[ROSE, 3], count=2, seed=5, guidance_scale=2.0, num_inference_steps=4, sampler="ddpm"
    )
    for file, image in zip(files, expected, strict=True):
        assert isinstance(image, Image.Image)
        assert np.array_equal(pixels(file), np.asarray(image))
    assert pixels(tmp_path / "made" / "grid.png").shape[1] > 2 * 16
    assert sorted(path.name for path in class_run.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "log.csv",
        "loss.png",
        "loss.png.json",
    ]


def test_a_picture_says_how_it_was_made(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    assert run_command(lab.sample.main, f"run={class_run}", "classes=[7]", "count=2", "seed=9", "out=made")[0] == 0
    facts = read_provenance(pictures(tmp_path / "made")[1])
    names = lab.load(class_run).conditioner.class_names
    assert isinstance(names, tuple)
    assert (facts["caption"], facts["number"], facts["seed"], facts["step"]) == (names[7], 1, 9, 6)
    assert facts["config"]["thresholding"] == "static"
    assert facts["run"] == str(class_run)
    assert facts["weights_sha256"] == lab.load(class_run).provenance["weights_sha256"]
    assert (facts["config"]["classes"], facts["config"]["count"]) == ([7], 2)
    defaults = lab.load(class_run).sampling  # of the run, as they were when the picture was made
    assert (facts["config"]["sampler"], facts["config"]["num_inference_steps"]) == ("ddim", 3)
    assert facts["config"]["guidance_scale"] == defaults.guidance_scale
    assert read_provenance(tmp_path / "made" / "grid.png")["weights_sha256"] == facts["weights_sha256"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_precision_that_is_asked_for_is_used(
    class_run: Path, run_command: Command, tmp_path: Path, precision: str
) -> None:
    asked = (f"run={class_run}", "classes=[7]", "out=made", f"precision={precision}")
    assert run_command(lab.sample.main, *asked)[0] == 0
    assert read_provenance(tmp_path / "made" / "grid.png")["precision"] == precision
    code, said = run_command(lab.sample.main, f"run={class_run}", "classes=[7]", "precision=fp16")
    assert code == 2 and "precision=fp16" in said


def test_prompts_and_pictures_ask_a_clip_run(clip_run: Path, run_command: Command, tmp_path: Path) -> None:
    run = f"run={clip_run}"
    assert run_command(lab.sample.main, run, "prompts=['a red flower, please!']", "out=words")[0] == 0
    (file,) = pictures(tmp_path / "words")
    assert file.name == "0000_a-red-flower-please_seed0.png"
    assert run_command(lab.sample.main, run, f"images=[{file}]", "out=likeness")[0] == 0
    (likeness,) = pictures(tmp_path / "likeness")
    assert likeness.name == "0000_0000-a-red-flower-please-seed0-png_seed0.png"
    assert "neighbours" in read_provenance(file) and "neighbours" not in read_provenance(likeness)  # which is of texts
    assert run_command(lab.sample.main, run, f"classes=[{ROSE}]", "out=names")[0] == 0
    assert not np.array_equal(pixels(file), pixels(pictures(tmp_path / "names")[0]))


def test_texts_may_be_told_alone(clip_run: Path, run_command: Command, tmp_path: Path) -> None:
    for count in ("null", "4", "0", "17"):
        asked = [f"run={clip_run}", 'prompts=["a red flower"]', f"neighbours={count}", f"out=by_{count}"]
        code, said = run_command(lab.sample.main, *asked)
        assert code == (2 if count == "17" else 0), said
    assert "neighbours=17: use 0 to the run's conditioning.nearest=16" in said
    files = [pictures(tmp_path / f"by_{count}")[0] for count in ("null", "4", "0")]
    assert np.array_equal(pixels(files[0]), pixels(files[1])) and not np.array_equal(pixels(files[0]), pixels(files[2]))
    assert [read_provenance(file).get("neighbours") for file in files] == [4, 4, None]
    assert all(read_provenance(file)["modality_shift"] is True for file in files)


def test_neighbours_that_cannot_be_told_by_are_refused(clip_run: Path, run_command: Command, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, said = run_command(lab.sample.main, f"run={clip_run}", f"images=[{tmp_path / 'a.png'}]", "neighbours=4")
    assert (code, "images are told as they are" in said) == (2, True), said
    conditioner = lab.load(clip_run).conditioner
    conditioner.pictures = conditioner.pictures[:0]  # type: ignore[index]
    tell_texts_by(conditioner, None)
    tell_texts_by(conditioner, 0)
    with pytest.raises(LabError, match=r"neighbours=4: the run is from before .* lab\.export run=\.\.\. remember=true"):
        tell_texts_by(conditioner, 4)


def test_latents_are_not_held_in_and_say_so(latent_run: Path, run_command: Command, tmp_path: Path) -> None:
    assert run_command(lab.sample.main, f"run={latent_run}", "classes=[7]", "out=made")[0] == 0
    assert read_provenance(tmp_path / "made" / "grid.png")["config"]["thresholding"] is None


def test_pictures_that_were_made_otherwise_are_not_replaced_without_a_word(
    class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    asked = (f"run={class_run}", "classes=[7]", "out=made")
    for changes, warned in (([], False), ([], False), (["guidance_scale=9"], True)):
        code, said = run_command(lab.sample.main, *asked, *changes)
        assert code == 0 and ("pictures that were made otherwise lie there" in said) is warned, said


def test_a_picture_that_says_nothing_of_its_making_is_not_replaced_without_a_word(
    class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "made" / "grid.png")
    code, said = run_command(lab.sample.main, f"run={class_run}", "classes=[7]", "out=made")
    assert code == 0 and "pictures that were made otherwise lie there" in said, said


def test_nothing_guides_an_unconditional_run(
    run_command: Command, tiny_settings: tuple[str, ...], tmp_path: Path
) -> None:
    asked = ("+experiment=class_cond", "conditioning=unconditional", "training.steps=2", "hydra.run.dir=run")
    assert run_command(lab.train.main, *tiny_settings, *asked)[0] == 0
    for main, knob in ((lab.sample.main, "rescale_phi=5"), (lab.evaluate.main, "guidance_scale=2")):
        code, said = run_command(main, "run=run", knob)
        assert code == 2 and f"{knob}" in said.replace(".0", "") and "there is nothing to guide" in said, said
    assert run_command(lab.sample.main, "run=run", "out=made")[0] == 0


def test_raw_weights_make_other_pictures(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    for weights in ("weights", "raw"):
        asked = ["classes=[1]", f"weights={weights}", f"out={weights}", "num_inference_steps=20"]
        assert run_command(lab.sample.main, f"run={class_run}", *asked)[0] == 0
    one, other = (pixels(pictures(tmp_path / weights)[0]) for weights in ("weights", "raw"))
    assert not np.array_equal(one, other)


def test_pictures_go_to_the_run_unless_told_otherwise(copied: Path, run_command: Command) -> None:
    asked = ["classes=[1]", "height=8", "width=24", "batch_size=1"]
    assert run_command(lab.sample.main, f"run={copied}", *asked)[0] == 0
    (file,) = pictures(copied / "generated")
    assert pixels(file).shape == (8, 24, 3)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["classes=rose"], "classes=rose: must be a list of str or int or null"),
        (["prompts=[1]"], "prompts=[1]: must be a list of str or null"),
        (["classes=[1]", "count=two"], "count=two: must be int"),
        (["classes=[1]", "seed=x"], "seed=x: must be int"),
        (["classes=[1]", "guidance_scale=high"], "guidance_scale=high: must be float or null"),
        (["classes=[1]", "weights=best"], "weights=best: must be weights or raw"),
        (["classes=[1]", "device=toaster"], "device=toaster: cannot be used here"),
        (["classes=[1]", "eta=-1"], "eta"),
        (["classes=[1]", "neighbours=2"], "hears no texts by CLIP's vectors; leave it out"),
        (["classes=[1]", "stpes=3"], "stpes: no such key"),
        (["classes=[]"], "classes=[]: name at least one"),
        (["classes=[1]", "prompts=[a]"], "prompts and classes are given together"),
        ([], "this run is class-conditional: give classes="),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    class_run: Path, run_command: Command, tmp_path: Path, asked: list[str], told: str
) -> None:
    code, said = run_command(lab.sample.main, f"run={class_run}", "out=made", *asked)
    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert told in said
    assert list(tmp_path.iterdir()) == []


def test_a_missing_picture_is_named(clip_run: Path, run_command: Command, tmp_path: Path) -> None:
    code, said = run_command(lab.sample.main, f"run={clip_run}", "images=[nowhere.png]", "out=made")
    assert code == 2
    assert "nowhere.png" in said
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(class_run: Path, run_command: Command, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(8)
    code, said = run_command(lab.sample.main, f"run={class_run}", "classes=[1]", "count=12", f"out={disk}")
    assert code == 2
    assert said.count("\n") == 1
    assert "No space left on device" in said
    assert all(pixels(path).size for path in disk.glob("*.png"))  # whole pictures only


def test_a_run_that_still_trains_can_be_looked_at(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    """It has checkpoints, but its last one is being written."""
    copy = Path(shutil.copytree(class_run, tmp_path / "run"))
    (copy / "checkpoints" / "step_00000006").rename(copy / "checkpoints" / ".staging-1-step_00000006")
    assert run_command(lab.sample.main, f"run={copy}", "classes=[1]", "out=made")[0] == 0
    assert read_provenance(pictures(tmp_path / "made")[0])["step"] == 3


@pytest.mark.parametrize(
    ("number", "caption", "name"),
    [
        (3, "a red flower", "0003_a-red-flower_seed7.png"),
        (0, "", "0000_seed7.png"),
        (12345, "  Rose / ../etc  ", "12345_rose-etc_seed7.png"),
        (1, "x" * 60, f"0001_{'x' * 40}_seed7.png"),
        (1, "цветок", "0001_seed7.png"),
    ],
)
def test_names_of_files(number: int, caption: str, name: str) -> None:
    assert file_name(number, caption, 7) == name
