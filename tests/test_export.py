"""Small copies of runs: half the size, the same pictures."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

import lab
from lab import checkpoint, export, runs
from lab.clip import load_clip
from lab.errors import LabError
from lab.evaluators import judge_of
from lab.judging import load_judge
from lab.render import read_provenance
from lab.sample import main as sample
from lab.training.log import read_rows

Command = Callable[..., tuple[int, str]]


def samples(run: Path) -> Tensor:
    made = lab.load(run).sample(classes=[0, 1], num_inference_steps=3, output="tensor")
    assert isinstance(made, Tensor)
    return made


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_copy_makes_the_same_pictures_in_a_fraction_of_the_space(
    class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    code, said = run_command(export.main, f"run={class_run}", f"out={tmp_path / 'kept'}")
    assert code == 0, said
    assert "step 6 in" in said
    torch.testing.assert_close(samples(tmp_path / "kept"), samples(class_run), rtol=0, atol=0.02)
    assert size(tmp_path / "kept" / "checkpoints") < size(class_run / "checkpoints") / 4
    assert {path.name for path in (tmp_path / "kept").iterdir()} >= {"config.yaml", "log.csv", "loss.png"}
    weights = checkpoint.latest(tmp_path / "kept" / "checkpoints").tensors("weights")  # type: ignore[union-attr]
    assert {t.dtype for t in weights.values() if t.ndim > 1} == {torch.float16}
    assert all(p.dtype == torch.float32 for p in lab.load(tmp_path / "kept").parameters())


def test_it_goes_to_the_small_copies_by_itself(
    copied: Path, run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(export.main, f"run={copied}")[0] == 0
    small = tmp_path / "results" / "small" / copied.name
    assert run_command(sample, f"run={small}", "classes=[1]")[0] == 0
    made = next((small / "generated").glob("0000*.png"))
    assert read_provenance(made)["step"] == 6


def test_a_checkpoint_may_be_chosen_by_its_step(copied: Path, run_command: Command, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for step in (3, 6):
        (copied / "samples").mkdir(exist_ok=True)
        (copied / "samples" / f"step_{step:07d}.png").touch()
    code, said = run_command(export.main, f"run={copied}", "step=3", f"out={kept}")
    assert (code, "step 3 in" in said) == (0, True), said
    assert [path.name for path in (kept / "checkpoints").iterdir()] == ["step_00000003"]
    assert [path.name for path in kept.glob("samples/*")] == ["step_0000003.png"]
    assert [row["step"] for row in read_rows(kept / "log.csv")] == ["1", "2", "3"]
    assert read_provenance(kept / "loss.png")["last_step"] == 3
    chosen = checkpoint.load(copied / "checkpoints" / "step_00000003").tensors("weights")
    for name, tensor in checkpoint.load(kept / "checkpoints" / "step_00000003").tensors("weights").items():
        torch.testing.assert_close(tensor.float(), chosen[name], rtol=1e-3, atol=1e-6)
    code, said = run_command(export.main, f"run={copied}", "step=5", f"out={tmp_path / 'other'}")
    assert (code, "step=5" in said, "holds 3, 6" in said) == (2, True, True), said
    assert not (tmp_path / "other").exists()


def test_the_best_checkpoint_may_be_chosen(copied: Path, run_command: Command, tmp_path: Path) -> None:
    code, said = run_command(export.main, f"run={copied}", "step=best", f"out={tmp_path / 'kept'}")
    assert (code, "no checkpoint that was rated" in said) == (2, True), said
    for step, best in ((3, 0.1), (6, 0.2)):
        found = checkpoint.load(copied / "checkpoints" / f"step_{step:08d}")
        tensors = {name: found.tensors(name) for name in ("weights", "raw", "optimizer")}
        checkpoint.save(copied / "checkpoints", step, tensors, found.state, keep=9, best=best)
    code, said = run_command(export.main, f"run={copied}", "step=best", f"out={tmp_path / 'kept'}")
    assert (code, "step 3 in" in said) == (0, True), said
    assert run_command(export.main, f"run={copied}", "step=last", f"out={tmp_path / 'other'}")[0] == 2


def test_a_copy_has_one_checkpoint_though_an_earlier_one_was_better(
    copied: Path, run_command: Command, tmp_path: Path
) -> None:
    for step, best in ((3, 0.1), (6, 0.2)):
        found = checkpoint.load(copied / "checkpoints" / f"step_{step:08d}")
        tensors = {name: found.tensors(name) for name in ("weights", "raw", "optimizer")}
        checkpoint.save(copied / "checkpoints", step, tensors, {**found.state, "best": best}, keep=9, best=best)
        code, said = run_command(export.main, f"run={copied}", f"step={step}", f"out={tmp_path / 'kept'}")
        assert code == 0, said
    assert [path.name for path in (tmp_path / "kept" / "checkpoints").iterdir()] == ["step_00000006"]


def test_a_run_from_before_is_given_pictures_to_remember(
    clip_run: Path, class_run: Path, run_command: Command, tmp_path: Path
) -> None:
    before, kept = tmp_path / "before", tmp_path / "kept"
    shutil.copytree(clip_run, before)
    found = checkpoint.latest(before / "checkpoints")
    assert found is not None
    weights = found.tensors("weights")
    pictures = weights.pop("model.conditioner.pictures")
    cfg = OmegaConf.load(before / "config.yaml")
    cfg.training.preview_every = 6
    OmegaConf.save(cfg, before / "config.yaml")
    (before / "evaluation" / "1").mkdir(parents=True)
    (before / "evaluation" / "1" / "evaluation.json").write_text(json.dumps({"step": found.step}))
    checkpoint.save(before / "checkpoints", found.step, {"weights": weights}, found.state)
    assert len(lab.load(before).conditioner.pictures) == 0  # type: ignore[arg-type]
    code, said = run_command(export.main, f"run={before}", "remember=true", f"out={kept}")
    assert code == 0, said
    conditioner = lab.load(kept).conditioner
    assert (kept / "samples" / f"step_{found.step:07d}.png").is_file() and not export.results(kept)
    torch.testing.assert_close(conditioner.pictures, pictures, rtol=1e-3, atol=1e-4)
    with pytest.raises(LabError, match=r"remember=true: .* is not conditioned on CLIP's vectors"):
        export.export(class_run, tmp_path / "other", remember=True)
    cfg.image_set = "petals 0123456789abcdef"
    OmegaConf.save(cfg, before / "config.yaml")
    with pytest.raises(LabError, match=r"remember=true: petals is not what .* was trained on, petals 0123456789abcdef"):
        export.export(before, tmp_path / "other", remember=True)


def test_a_runs_own_clip_comes_along(clip_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(clip_run, tmp_path / "run"))
    export.export(run, tmp_path / "kept")
    shutil.rmtree(run)
    made = lab.load(tmp_path / "kept").sample(["a red flower"], num_inference_steps=2, output="tensor")
    assert isinstance(made, Tensor) and bool(made.isfinite().all())


def test_a_kept_model_beside_the_kept_clip_has_no_copy_of_it(
    clip_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tmp_path / "reference"
    monkeypatch.setattr(export, "REFERENCE", reference)
    shutil.copytree(clip_run / "clip", reference / "flower_clip_small")
    export.export(clip_run, reference / "kept")
    export.export(clip_run, tmp_path / "elsewhere")
    assert not (reference / "kept" / "clip").exists() and (tmp_path / "elsewhere" / "clip").is_dir()


def test_an_autoencoder_is_kept_too(run_command: Command, tiny_settings: tuple[str, ...], tmp_path: Path) -> None:
    import lab.train

    small = ("autoencoder.channels=16", "autoencoder.blocks=1", "reconstruction.perceptual=none")
    options = ("+experiment=vae", "training.steps=1", f"hydra.run.dir={tmp_path / 'vae'}", *small)
    assert run_command(lab.train.main, *tiny_settings, *options)[0] == 0
    export.export(tmp_path / "vae", tmp_path / "kept")
    (tmp_path / "vae" / "samples").mkdir(exist_ok=True)
    (tmp_path / "vae" / "samples" / "step_0000001.png").touch()  # which shows real pictures
    export.export(tmp_path / "vae", tmp_path / "kept")
    assert not (tmp_path / "kept" / "samples").exists()
    images = torch.rand(1, 3, 16, 16)
    one, other = (runs.load_autoencoder(tmp_path / name).encode(images) for name in ("vae", "kept"))
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def test_what_makes_no_pictures_is_shown_on_those_of_a_diffusion_run(
    judge_run: Path, vae_run: Path, class_run: Path, latent_run: Path, run_command: Command, tmp_path: Path
) -> None:
    for run, pictures in ((judge_run, class_run), (vae_run, latent_run)):
        out = tmp_path / run.name
        code, said = run_command(export.main, f"run={run}", f"out={out}", f"pictures={pictures}")
        assert code == 0, said
        sheet = out / "samples" / f"of_{pictures.name}.png"
        assert list((out / "samples").glob("*.png")) == [sheet]
        assert read_provenance(sheet)["weights_sha256"] == lab.load(pictures).provenance["weights_sha256"]
        again = tmp_path / f"{run.name}_again"
        export.export(out, again)  # a copy's sheet comes along, an own one with real pictures does not
        assert [path.read_bytes() for path in (again / "samples").glob("*.png")] == [sheet.read_bytes()]
    code, said = run_command(export.main, f"run={class_run}", f"out={out}", f"pictures={class_run}")
    assert code == 2 and "makes pictures of its own; leave it out" in said
    code, said = run_command(export.main, f"run={judge_run}", f"out={out}", f"pictures={tmp_path}")
    assert code == 2 and f"{tmp_path}: no config.yaml there" in said
    with pytest.raises(LabError, match=r"pictures=.*judge: it makes no pictures; name a diffusion run"):
        export.export(vae_run, tmp_path / "other", pictures=judge_run)


def test_of_a_judges_run_the_judge_is_kept(judge_run: Path, tmp_path: Path) -> None:
    out = export.export(judge_run, tmp_path / "judge")
    kept = judge_of(load_judge(judge_run / "judge").class_names, out)
    assert kept is not None and kept.fingerprint == load_judge(judge_run / "judge").fingerprint
    assert (out / "config.yaml").is_file() and (out / "log.csv").is_file() and not (out / "checkpoints").exists()
    again = export.export(out, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    (again / "model.safetensors").write_bytes(b"another")
    with pytest.raises(LabError, match="holds another judge; delete it first"):
        export.export(judge_run, again)
    (tmp_path / "run").mkdir()
    shutil.copy(judge_run / "config.yaml", tmp_path / "run")
    with pytest.raises(LabError, match="its training has not ended; there is no judge in it yet"):
        export.export(tmp_path / "run", tmp_path / "other")
    with pytest.raises(LabError, match=r"step=2: of .* the judge is kept"):
        export.export(judge_run, tmp_path / "other", step=2)


@pytest.mark.slow
def test_a_clip_may_leave_the_words_behind_that_it_never_met(
    run_command: Command, tiny_settings: tuple[str, ...], tmp_path: Path, class_run: Path
) -> None:
    import lab.train

    run, out = tmp_path / "clip", tmp_path / "kept"
    options = ("+experiment=flower_clip", "training.steps=2", f"hydra.run.dir={run}")
    assert run_command(lab.train.main, *tiny_settings, *options)[0] == 0
    for _ in range(2):  # the second time it is there already
        assert run_command(export.main, f"run={run}", f"out={out}", "words=met")[0] == 0
    assert run_command(export.main, f"run={out}", f"out={tmp_path / 'again'}", "words=met")[0] == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    whole, small = load_clip(pretrained=str(run / "clip")), load_clip(pretrained=str(out))
    torch.testing.assert_close(small.encode_text(["a flower"]), whole.encode_text(["a flower"]), rtol=0, atol=0)
    assert size(out) < size(run / "clip") / 3
    assert runs.clip_trained_on(out) == runs.clip_trained_on(run / "clip") == "petals"
    note = json.loads((run / "clip" / "open_clip_config.json").read_text())
    note["training"]["image_set_fingerprint"] = "another"
    (run / "clip" / "open_clip_config.json").write_text(json.dumps(note))
    code, said = run_command(export.main, f"run={run}", f"out={tmp_path / 'other'}", "words=met")
    assert code == 2 and "words=met: petals is not what" in said and not (tmp_path / "other").exists()
    code, said = run_command(export.main, f"run={class_run}", f"out={tmp_path / 'other'}", "words=met")
    assert code == 2 and "words=met: it is for runs that trained a CLIP, not task=diffusion" in said


def test_a_run_in_latents_takes_a_decoder_of_the_same_latents(
    latent_run: Path, vae_run: Path, run_command: Command, tmp_path: Path, tiny_settings: tuple[str, ...]
) -> None:
    import lab.train

    latent_run = Path(shutil.copytree(latent_run, tmp_path / "latent"))
    config = OmegaConf.load(latent_run / "config.yaml")
    config.training.preview_every = 3
    OmegaConf.save(config, latent_run / "config.yaml")
    small = ("training.steps=6", "data.image_size=32", "reconstruction.perceptual=none")
    asked = ("+experiment=vae_decoder", f"latents.run={vae_run}", f"hydra.run.dir={tmp_path / 'tuned'}")
    assert run_command(lab.train.main, *tiny_settings, *small, *asked)[0] == 0
    taking = (f"run={latent_run}", f"decoder={tmp_path / 'tuned'}")
    code, said = run_command(export.main, *taking, f"out={tmp_path / 'kept'}")
    assert code == 0, said
    export.export(tmp_path / "tuned", tmp_path / "small")
    weights = checkpoint.latest(tmp_path / "small" / "checkpoints").tensors("weights")  # type: ignore[union-attr]
    assert {key.split(".")[0] for key in weights} == {"autoencoder"}  # nobody needs the discriminator
    before = tmp_path / "small" / "before"
    assert (before / "log.csv").read_bytes() == (vae_run / "log.csv").read_bytes()
    assert (runs.read_config(before).name, runs.read_config(tmp_path / "small").name) == ("vae", "vae_decoder")
    own, kept = (lab.load(run, "cpu").autoencoder for run in (latent_run, tmp_path / "kept"))
    tuned = runs.load_autoencoder(tmp_path / "tuned", "cpu")
    images, z = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, own.latent_channels, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(kept.encode(images), own.encode(images), rtol=0, atol=0.02)  # to the set's scale
        torch.testing.assert_close(kept.reconstruct(z), tuned.reconstruct(z), rtol=0, atol=0.02)
        assert not torch.equal(kept.reconstruct(z), own.reconstruct(z))
    assert runs.read_config(tmp_path / "kept").latents.run == str(tmp_path / "tuned")
    assert [path.name for path in (tmp_path / "kept").glob("samples/*.png")] == ["step_0000006.png"]
    another = ("+experiment=vae", "seed=7", f"hydra.run.dir={tmp_path / 'tuned'}", "autoencoder.channels=16")
    shutil.rmtree(tmp_path / "tuned")
    assert run_command(lab.train.main, *tiny_settings, *small, *another, "autoencoder.blocks=1")[0] == 0
    code, said = run_command(export.main, *taking, f"out={tmp_path / 'kept'}")
    assert code == 2 and "its latents are others" in said


def test_a_run_is_not_copied_onto_itself(copied: Path, tmp_path: Path) -> None:
    before = size(copied)
    with pytest.raises(LabError, match=r"out=.*copy: is the run itself"):
        export.export(copied, tmp_path / "elsewhere" / ".." / "copy")
    assert size(copied) == before
    kept = tmp_path / "kept"
    export.export(copied, kept)
    made = samples(kept)
    export.export(kept, kept)  # a copy has no more than its copy
    torch.testing.assert_close(samples(kept), made, rtol=0, atol=0)
