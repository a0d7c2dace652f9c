"""Both sweeps as commands, on runs that were trained for a moment."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from experiments import cfg_sweep, phi_sweep
from lab.render import read_provenance

Command = Callable[..., tuple[int, str]]
SMALL = ("points=3", "count=2", "num_inference_steps=3", "classes=[0,1]")


def test_the_command_writes_video_stills_curves_table_and_page(
    class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    code, said = run_command(cfg_sweep.main, f"run={class_run}", f"out={tmp_path}", *SMALL)
    assert code == 0, said
    assert "similarity is left out: no CLIP knows this run's data" in said
    assert "accuracy is left out: no judge knows these classes" in said
    names = {path.name for path in tmp_path.iterdir() if path.suffix != ".json"}
    assert names == {"cfg_sweep.csv", "cfg_sweep.mp4", "curves.png", "index.html", "parts", "stills.png"}
    with (tmp_path / "cfg_sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["guidance_scale"] for row in rows] == ["-10.0", "0.0", "10.0"]
    assert list(rows[0]) == ["guidance_scale", "saturation", "clip_fraction", "diversity"]
    assert imageio.imread(tmp_path / "cfg_sweep.mp4", index=None).shape[0] == 3
    for name in ("cfg_sweep.mp4", "stills.png"):
        told = read_provenance(tmp_path / name)
        assert told["guidance_scale"] == [-10, 0, 10] and told["seed"] == 0 and "weights_sha256" in told
    page = (tmp_path / "index.html").read_text()
    assert "guidance scale -10" in page and f"run={class_run}" in page
    assert "the article: unnatural colours at -10" in page and "as there?" in page
    assert "the article: saturated at 10" not in page  # 1, beside which it is seen, is not in the sweep


def test_a_judge_counts_what_it_takes_for_the_class(
    class_run: Path, judge_run: Path, run_command: Command, tmp_path: Path
) -> None:
    code, said = run_command(cfg_sweep.main, f"run={class_run}", f"out={tmp_path}", f"judge={judge_run}", *SMALL)
    assert code == 0, said
    with (tmp_path / "cfg_sweep.csv").open() as file:
        shares = [float(row["accuracy"]) for row in csv.DictReader(file)]
    assert all(share in (0, 0.25, 0.5, 0.75, 1) for share in shares)  # two classes, two seeds
    code, said = run_command(cfg_sweep.main, f"run={class_run}", f"out={tmp_path}", "judge=nowhere", *SMALL)
    assert code == 2 and "judge=nowhere: no judge.json" in said


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("judge=somewhere", "measures=[saturation]"), "judge=somewhere: nothing asks it; add accuracy to measures"),
        (
            ("guidance_interval=[0.001,0.002]",),
            "[0.001, 0.002]: none of the 3 evaluations lies in it",
        ),
        (("guidance_interval=[1,0]",), "guidance_interval=[1, 0]: use two levels of noise"),
        (("measures=[accuracy]",), "measures=[accuracy]: nothing of it can be measured here"),
        (("measures=[diversity]", "count=1"), "measures=[diversity]: nothing of it can be measured here"),
    ],
)
def test_what_would_be_for_nothing_is_refused(
    class_run: Path, run_command: Command, tmp_path: Path, asked: tuple[str, ...], words: str
) -> None:
    code, said = run_command(cfg_sweep.main, f"run={class_run}", f"out={tmp_path / 'new'}", *SMALL, *asked)
    assert code == 2 and words in said, said
    assert not (tmp_path / "new").exists()


def test_prompts_have_no_classes_to_be_judged_by(
    clip_run: Path, judge_run: Path, run_command: Command, tmp_path: Path
) -> None:
    asked = (f"run={clip_run}", f"out={tmp_path}", "prompts=[a red flower]", f"judge={judge_run}")
    code, said = run_command(cfg_sweep.main, *asked)
    assert code == 2 and "it tells classes, and prompts ask for none" in said


def test_phi_shows_its_gain_as_gif_and_for_clip_runs(clip_run: Path, run_command: Command, tmp_path: Path) -> None:
    asked = ("prompts=[a red flower]", "values=[-1,1]", "count=1", "num_inference_steps=3", "video=gif")
    code, said = run_command(phi_sweep.main, f"run={clip_run}", f"out={tmp_path}", *asked)
    assert code == 0, said
    assert {"gains.png", "phi_sweep.gif"} <= {path.name for path in tmp_path.iterdir()}
    header = (tmp_path / "phi_sweep.csv").read_text().splitlines()[0]
    assert header == "rescale_phi,saturation,clip_fraction,edge_energy,similarity"
    page = (tmp_path / "index.html").read_text()
    assert "r lies between" in page and ">edge energy</th>" in page


def test_the_same_command_gives_the_same_pixels(class_run: Path, run_command: Command, tmp_path: Path) -> None:
    for name in ("one", "other"):
        code, said = run_command(cfg_sweep.main, f"run={class_run}", f"out={tmp_path / name}", *SMALL)
        assert code == 0, said
    for file in ("cfg_sweep.mp4", "stills.png", "curves.png", "cfg_sweep.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("run=null", "run=...: name a folder"),
        ("points=0", "points=0: use finite ends"),
        ("values=[]", "values=[]: name at least one"),
        ("values=[nan]", "values=[nan]: name at least one finite"),
        ("num_inference_steps=0", "num_inference_steps=0: use at least 1"),
        ("num_inference_steps=100000", "num_inference_steps"),
        ("count=0", "count=0"),
        ("measures=[beauty]", "measures=beauty: use some of saturation"),
        ("measures=[]", "measures=[]: name some"),
        ("sampler=dddim", "sampler=dddim: use one of"),
        ("guidance_interval=[1,0]", "guidance_interval"),
        ("classes=[moon]", "classes=moon: no such class; nearest"),
        ("prompts=[a rose]", "class-conditional"),
        ("video=avi", "video=avi: use mp4 or gif"),
        ("fps=0", "fps=0: use more"),
        ("point=3", "did you mean points?"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    class_run: Path, run_command: Command, tmp_path: Path, override: str, words: str
) -> None:
    code, said = run_command(cfg_sweep.main, f"run={class_run}", f"out={tmp_path / 'out'}", override)
    assert code == 2 and words in said, said
    assert not (tmp_path / "out").exists()


def test_phi_at_scale_one_is_refused(class_run: Path, run_command: Command) -> None:
    code, said = run_command(phi_sweep.main, f"run={class_run}", "guidance_scale=1")
    assert code == 2 and "guidance_scale=1: r is 1 there" in said


def test_the_size_of_a_batch_changes_nothing_but_the_pieces(
    class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    asked = (f"run={class_run}", f"out={tmp_path}", "values=[0,2]", "count=1", *SMALL[2:])
    tables = []
    for size in ("64", "1"):
        code, said = run_command(cfg_sweep.main, *asked, f"batch_size={size}")
        assert code == 0, said
        with (tmp_path / "cfg_sweep.csv").open() as file:
            tables.append([float(row["saturation"]) for row in csv.DictReader(file)])
    assert tables[0] == pytest.approx(tables[1], abs=1e-3)


def test_nothing_is_no_guidance_at_all_whatever_the_runs_own(
    class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    """At 0 every class is the same picture, though this run guides without the parallel part."""
    shutil.copytree(class_run, tmp_path / "run")
    cfg = OmegaConf.load(tmp_path / "run" / "config.yaml")
    cfg.sampling.guidance_parallel = 0.0
    OmegaConf.save(cfg, tmp_path / "run" / "config.yaml")
    code, said = run_command(cfg_sweep.main, f"run={tmp_path / 'run'}", f"out={tmp_path}", "values=[0]", *SMALL[1:])
    assert code == 0, said
    pieces = [load_file(path)["images"] for path in (tmp_path / "parts").rglob("*.safetensors")]
    first, second = torch.cat(pieces).unflatten(0, (2, 2))
    assert torch.equal(first, second)


def test_an_autoencoders_run_is_refused(vae_run: Path, run_command: Command) -> None:
    code, said = run_command(cfg_sweep.main, f"run={vae_run}")
    assert code == 2 and "samples come from a diffusion run" in said
