"""lab.evaluate and lab.compare as commands, on runs that were trained for a moment."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import lab
from lab import compare, evaluate, runs
from lab.evaluation import FeatureSpace, tools
from lab.evaluation.worth import floor_pictures
from lab.model import DiffusionModel
from lab.render.images import to_uint8

Command = Callable[..., tuple[int, str]]
ROOT = Path(__file__).resolve().parents[1]
OTHERWISE = {
    **{"n": 10, "held_out_n": 4, "reference": 5, "seed": 0, "guidance_scale": 1, "space": "s", "space_asked": "judge"},
    **{"judge": {}, "real": {}, "held_out": {}},
}
SMALL = ("n=24", "num_inference_steps=2", "suspicious=4", "batch_size=10")


@pytest.fixture
def asked(judge_run: Path, tmp_path: Path) -> tuple[str, ...]:
    return (f"judge={judge_run}", f"out={tmp_path / 'evaluation' / '2'}", "guidance_scale=2", *SMALL)


def test_it_writes_numbers_beside_those_of_real_pictures(
    class_run: Path, run_command: Command, tmp_path: Path, asked: tuple[str, ...]
) -> None:
    exactly = ("cas_steps=2", "cas_n=30", f"data.cache_dir={tmp_path / 'cache'}", "precision=fp32")
    code, said = run_command(evaluate.main, f"run={class_run}", *asked, *exactly)
    assert code == 0, said
    folder = tmp_path / "evaluation" / "2"
    found = json.loads((folder / "evaluation.json").read_text())
    assert (found["n"], found["reference"], found["seed"]) == (24, 40, 0)
    assert found["generated"].keys() == found["real"].keys() >= {"fid", "kid", "kid_error", "top1", "copies"}
    assert 0 <= found["generated"]["cas_top1"] <= found["generated"]["cas_top5"] <= 1
    assert found["precision"] == "fp32"
    assert len(list((tmp_path / "cache" / "cas").glob("cas-*/checkpoints"))) == 1  # of the real pictures, for all runs
    assert len(list(folder.glob("cas-*/checkpoints"))) == 1
    assert found["cas_n"] == 30 and "learned from 30 samples, or from as many training pictures" in said
    assert found["guidance_scale"] == 2 and found["judge"]["images"] == 40 and found["space"].startswith("judge ")
    assert found["factors"].keys() >= {"petal_colour", "petal_count"}
    assert all(
        0 <= shares[side] <= 1
        for shares in found["factors"].values()
        for side in ("generated", "real", "held_out", "chance")
    )
    assert found["generated"]["clip_similarity"] is None and found["generated"]["colour_accuracy"] is None
    assert "The judge is right about" in said
    told = "30 samples: about 0 minutes; features: about 0; classifiers for CAS: about 0 minutes each, of two at most"
    assert told in said
    assert [len(side["held_out"]) for side in found["nearest"].values()] == [8, 8]
    settings = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in asked)}
    data = {"cache_dir": str(tmp_path / "cache")}
    again = evaluate.evaluate(class_run, **settings, cas_steps=2, cas_n=30, precision="fp32", data=data)
    assert again["generated"] == found["generated"]
    without = evaluate.evaluate(class_run, **settings, precision="fp32", data=data)
    assert [without[key] for key in ("generated", "cas_n", "cas_steps")] == [found["generated"], 30, 2]  # as before
    (folder / "evaluation.json").write_text(json.dumps(without | {"data_held_out": "others"}))
    anew = evaluate.evaluate(class_run, **settings, precision="fp32", data=data)
    assert [anew["generated"]["cas_top1"], anew["cas_n"], anew["cas_steps"]] == [None, 0, 0]  # held out were others
    others = evaluate.evaluate(class_run, **settings | {"guidance_scale": 3}, precision="fp32", data=data)
    assert [others["generated"]["cas_top1"], others["cas_n"], others["cas_steps"]] == [None, 0, 0]  # of other samples
    with pytest.raises(compare.LabError, match=r"cas_n=65: as many training pictures .* beside, and there are 64"):
        evaluate.evaluate(class_run, **settings, cas_steps=2, cas_n=65, data=data)
    with pytest.raises(compare.LabError, match=r"guidance=\.\.\.: lab.evaluate has no such key"):
        evaluate.evaluate(class_run, guidance=2)
    files = {"copies.png", "pixel_copies.png", "nearest.csv", "distances.png", "index.html", "parts"}
    assert files <= {path.name for path in folder.iterdir()}
    assert len((folder / "nearest.csv").read_text().splitlines()) == 1 + 2 * 24
    assert len(list((folder / "parts").rglob("samples_*.safetensors"))) == 3
    (further,) = (folder / "cas").rglob("samples_*.safetensors")  # numbers 24 to 29, drawn apart
    train = runs.pictures_of(class_run, "train", data)
    classes = train.labels[floor_pictures(train, 30, 0)[0]][24:].tolist()
    model = lab.load(class_run, precision="fp32")
    how = {"num_inference_steps": 2, "guidance_scale": 2.0, "sampler": found["sampler"], "spacing": found["spacing"]}
    expected = model.sample(classes=classes, numbers=range(24, 30), output="tensor", **how)
    assert (load_file(further)["pixels"].numpy() == to_uint8(expected)).all()


def test_of_a_clip_run_names_and_colours_are_measured_too(
    clip_run: Path, run_command: Command, tmp_path: Path, asked: tuple[str, ...]
) -> None:
    code, said = run_command(evaluate.main, f"run={clip_run}", *asked, "colour_count=1")
    assert code == 0, said
    found = json.loads((tmp_path / "evaluation" / "2" / "evaluation.json").read_text())
    for side in ("generated", "real", "held_out"):
        assert -1 <= found[side]["clip_similarity"] <= 1
        assert found[side]["colour_accuracy"] in [part / 8 for part in range(9)]
    assert found["colour_count"] == 1 and found["colour_n"] == 8
    assert "Colours are of 8 samples of colour prompts" in said


def test_compare_puts_runs_beside_real_pictures(
    class_run: Path, run_command: Command, tmp_path: Path, asked: tuple[str, ...]
) -> None:
    assert run_command(evaluate.main, f"run={class_run}", *asked)[0] == 0
    code, said = run_command(compare.main, f"runs=[{tmp_path}]", f"out={tmp_path / 'table'}")
    assert code == 0, said
    header, one, real, held_out = (tmp_path / "table" / "compare.csv").read_text().splitlines()
    assert header.startswith("run,guidance,fid,kid,kid_error")
    assert one.startswith(f"{tmp_path},2") and real.startswith('"real pictures, n = 24"')
    assert held_out.startswith('"held out, n = 40"') and "The judge is right about" in said
    assert header.endswith("sampler,spacing,num_inference_steps,guidance_interval,neighbours,seed")
    assert one.endswith(",24,0,unipc,karras,2,0.3 to 1,,0")


def test_another_space_has_its_own_folder_and_the_same_samples(
    copied: Path, judge_run: Path, run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = FeatureSpace("small", lambda images: torch.nn.functional.avg_pool2d(images, 4).flatten(1))
    monkeypatch.setattr(tools, "timm_space", lambda name, device: small)
    asked = (f"run={copied}", f"judge={judge_run}", "guidance_scale=2", *SMALL)
    assert run_command(evaluate.main, *asked)[0] == 0
    monkeypatch.setattr(DiffusionModel, "sample", lambda *_, **__: pytest.fail("sampled again"))
    code, said = run_command(evaluate.main, *asked, "space=timm/small")
    assert code == 0, said
    usual = "2_n-24_num_inference_steps-2"
    assert {path.name for path in (copied / "evaluation").iterdir()} == {usual, f"{usual}_timm_small"}
    for space in ("judge", "timm/small"):
        code, said = run_command(compare.main, f"runs=[{copied}]", f"space={space}", f"out={tmp_path / 'table'}")
        assert code == 0, said
    assert "in the space of small" in said


def test_without_classes_there_is_a_space_but_no_judge(
    train: Callable[..., Path], run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = FeatureSpace("small", lambda images: torch.nn.functional.avg_pool2d(images, 4).flatten(1))
    monkeypatch.setattr(tools, "timm_space", lambda name, device: small)
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)  # where no judge is
    run = train("run", "+experiment=class_cond", "conditioning=unconditional", "training.steps=2")
    code, said = run_command(evaluate.main, f"run={run}", *SMALL)
    assert code == 2 and "judge=...: none is kept that knows the classes of petals" in said
    code, said = run_command(evaluate.main, f"run={run}", "space=timm/small", *SMALL)
    assert code == 0, said
    named = "3_n-24_num_inference_steps-2_timm_small"
    found = json.loads((run / "evaluation" / named / "evaluation.json").read_text())
    assert found["judge"] == {} and found["generated"]["diversity"] is None and found["generated"]["fid"] > 0


def test_what_was_measured_otherwise_is_not_compared(tmp_path: Path) -> None:
    for name, n in (("a", 10), ("b", 20)):
        folder = tmp_path / name / "evaluation" / "1"
        folder.mkdir(parents=True)
        told = {**OTHERWISE, "n": n, "generated": {}}
        (folder / "evaluation.json").write_text(json.dumps(told))
    with pytest.raises(compare.LabError, match="evaluated with n 10 and 20, which cannot be compared"):
        compare.rows_of([str(tmp_path / "a"), str(tmp_path / "b")])
    for name, steps in (("c", 0), ("d", 600), ("e", 900)):
        folder = tmp_path / name / "evaluation" / "1"
        folder.mkdir(parents=True)
        real = {"fid": 1.5, "cas_top1": 0.25 if steps else None, "colour_accuracy": None if steps else 0.5}
        told = {**OTHERWISE, "cas_steps": steps, "generated": {}, "real": real}
        (folder / "evaluation.json").write_text(json.dumps(told))
    rows = compare.rows_of([str(tmp_path / "c"), str(tmp_path / "d")])
    assert len(rows) == 4  # the first has no CAS, and the second no colours
    assert {key: rows[2][key] for key in real} == {"fid": 1.5, "cas_top1": 0.25, "colour_accuracy": 0.5}
    other = {**OTHERWISE, "seed": 1, "generated": {}, "real": {"fid": 9.0, "cas_top5": 0.9}}
    (tmp_path / "f" / "evaluation" / "1").mkdir(parents=True)
    (tmp_path / "f" / "evaluation" / "1" / "evaluation.json").write_text(json.dumps(other))
    rows = compare.rows_of([str(tmp_path / "d"), str(tmp_path / "f")])
    assert rows[2]["seed"] == 0 and rows[2]["fid"] == 1.5 and "cas_top5" not in rows[2]  # other real pictures
    with pytest.raises(compare.LabError, match="evaluated with cas_steps 600 and 900"):
        compare.rows_of([str(tmp_path / "d"), str(tmp_path / "e")])


def test_a_quick_look_does_not_spoil_the_table(tmp_path: Path) -> None:
    """Of a run's evaluations those of the most samples stand in it."""
    for name, n in (("2", 2040), ("2_n-100", 100), ("4", 2040)):
        (tmp_path / "evaluation" / name).mkdir(parents=True)
        told = {**OTHERWISE, "n": n, "generated": {}}
        (tmp_path / "evaluation" / name / "evaluation.json").write_text(json.dumps(told))
    assert [one["n"] for one in compare.results_of(str(tmp_path))] == [2040, 2040]
    assert [one["n"] for one in compare.results_of(str(tmp_path), n=100)] == [100]  # unless these are asked for


@pytest.mark.slow
def test_two_processes_find_what_one_does(class_run: Path, judge_run: Path, tmp_path: Path) -> None:
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    found = []
    for name, processes in (("one", []), ("two", launch)):
        asked = (f"run={class_run}", f"judge={judge_run}", f"out={tmp_path / name}", "guidance_scale=2", *SMALL)
        command = [sys.executable, *processes, "-m", "lab.evaluate", *asked]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-6000:]
        measures = json.loads((tmp_path / name / "evaluation.json").read_text())["generated"]
        found.append({key: value for key, value in measures.items() if value is not None})
    assert found[0] == pytest.approx(found[1], rel=1e-2, abs=1e-3)


def test_evaluations_of_different_age_stand_in_one_table(run_command: Command, tmp_path: Path) -> None:
    for name, more in (("old", {}), ("new", {"clip_similarity": 0.5})):
        folder = tmp_path / name / "evaluation" / "1"
        folder.mkdir(parents=True)
        told = {**OTHERWISE, "generated": {"fid": 1.0, **more}}
        (folder / "evaluation.json").write_text(json.dumps(told))
    runs = f"runs=[{tmp_path / 'old'},{tmp_path / 'new'}]"
    code, said = run_command(compare.main, runs, f"out={tmp_path / 'table'}")
    assert code == 0, said
    header, old, new, *_ = (tmp_path / "table" / "compare.csv").read_text().splitlines()
    assert header.split(",")[:3] == ["run", "guidance", "fid"] and header.endswith(",clip_similarity")
    assert old.split(",")[2] == "1.0" and old.endswith(",") and new.endswith(",0.5")
    found = json.loads((tmp_path / "old" / "evaluation" / "1" / "evaluation.json").read_text())
    del found["held_out_n"]
    (tmp_path / "old" / "evaluation" / "1" / "evaluation.json").write_text(json.dumps(found))
    code, said = run_command(compare.main, runs, f"out={tmp_path / 'table'}")
    assert code == 2 and "by an earlier lab; python -m lab.evaluate run=" in said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("n=5", "n=5: use at least 10"),
        ("n=60", "n=60: the floor takes 60 of 64"),
        ("guidance_interval=[1,0]", "guidance_interval=[1, 0]: use two levels of noise"),
        ("cas_n=30", "cas_n=30: nothing learns from them; add cas_steps"),
        ("batch_size=0", "batch_size=0: use at least 1"),
        ("space=beauty", "space=beauty: use judge, clip, inception, timm/NAME or open_clip/NAME/WEIGHTS"),
        ("space=open_clip/ViT-B-32", "space=open_clip/ViT-B-32: name its weights too"),
        ("judge=nowhere", "judge=nowhere: no judge.json"),
        ("sampler=dd", "sampler=dd: use one of"),
        ("run=null", "run=...: name a folder"),
    ],
)
def test_mistakes_are_one_line(
    class_run: Path, run_command: Command, asked: tuple[str, ...], override: str, words: str
) -> None:
    code, said = run_command(evaluate.main, f"run={class_run}", *asked, override)
    assert code == 2 and words in said, said
    assert not Path(asked[1].removeprefix("out=")).exists()


def test_runs_that_nobody_evaluated_are_named(run_command: Command, tmp_path: Path) -> None:
    code, said = run_command(compare.main, f"runs=[{tmp_path}]")
    assert code == 2 and "no evaluation in space=judge" in said
    code, said = run_command(compare.main, f"runs=[{tmp_path / 'nope'}]")
    assert code == 2 and "nope: there is no such folder" in said
    for space, advice in (("judge", f"run={tmp_path} makes one"), ("clip", f"run={tmp_path} space=clip makes one")):
        code, said = run_command(compare.main, f"runs=[{tmp_path}]", f"space={space}")
        assert code == 2 and f"no evaluation in space={space}; python -m lab.evaluate {advice}" in said, said
    code, said = run_command(compare.main, f"runs=[{tmp_path},{tmp_path}/.]")
    assert code == 2 and "name each once" in said
    code, said = run_command(compare.main, f"runs=[{tmp_path}]", "space=beauty")
    assert code == 2 and "space=beauty: use judge" in said
    assert run_command(compare.main)[0] == 2


def test_what_is_about_samples_is_refused_of_runs_that_make_none(judge_run: Path, vae_run: Path) -> None:
    for run, key in ((judge_run, "guidance_scale"), (judge_run, "n"), (vae_run, "cas_steps"), (vae_run, "neighbours")):
        with pytest.raises(compare.LabError, match=f"{key}=20: it is about samples, and .* makes none"):
            evaluate.evaluate(run, **{key: 20})


def test_a_notebook_may_give_paths_and_numpys_numbers(tmp_path: Path) -> None:
    given = {"data": {"root": tmp_path}, "guidance_scale": np.float64(2), "guidance_interval": (np.float32(0.5), 1)}
    assert evaluate._as_config(given) == {
        "data": {"root": str(tmp_path)},
        "guidance_scale": 2.0,
        "guidance_interval": [0.5, 1],
    }
    with pytest.raises(compare.LabError, match="data=None: give a dictionary of its keys"):
        evaluate.evaluate(tmp_path, data=None)


def test_a_device_that_is_not_there_is_refused_for_all_kinds_of_runs(vae_run: Path, run_command: Command) -> None:
    code, said = run_command(evaluate.main, f"run={vae_run}", "device=toaster")
    assert (code, "device=toaster: cannot be used here" in said) == (2, True), said
