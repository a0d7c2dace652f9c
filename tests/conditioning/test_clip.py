"""CLIP vectors as conditions, with a stand-in for the CLIP model: no weights, no network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_clip import DIM, NAMES, FakeClip, N, all_inputs, image_set, pictures
from PIL import Image
from torch.nn.functional import normalize

from lab.conditioning import ClipVector
from lab.conditioning import clip as clip_module
from lab.conditioning.base import Request
from lab.errors import LabError

# -- preparation -------------------------------------------------------------------------------------


def test_what_it_tells_has_zero_mean_and_unit_variance_over_the_set(prepared: ClipVector) -> None:
    vectors = prepared(all_inputs(prepared)).vector
    assert vectors.shape == (N, DIM)
    torch.testing.assert_close(vectors.mean(dim=0), torch.zeros(DIM), rtol=0, atol=1e-5)
    assert float(vectors.var(dim=0, unbiased=False).mean()) == pytest.approx(1, abs=1e-4)


def test_training_inputs_are_unit_vectors_that_a_mirror_does_not_change(prepared: ClipVector, clip: FakeClip) -> None:
    images = image_set().view(torch.arange(N))
    one, other = clip.encode_images(images), clip.encode_images(images.flip(-1))
    inputs = all_inputs(prepared)
    torch.testing.assert_close(inputs, normalize(one + other, dim=1))
    torch.testing.assert_close(inputs.norm(dim=1), torch.ones(N))
    assert float((one - other).abs().max()) > 0.1
    some = prepared.training_inputs(image_set().batch(torch.tensor([7, 3])), torch.zeros(2, 2))
    assert torch.equal(some, inputs[[7, 3]])


def test_on_another_set_it_has_that_ones_vectors_and_its_own_weights(prepared: ClipVector, tmp_path: Path) -> None:
    others = replace(image_set(), pixels=image_set().pixels.flip(0), fingerprint="others")
    on_others, indices = prepared.on(others, str(tmp_path)), torch.arange(N)
    told = on_others.training_inputs(others.batch(indices), torch.zeros(N, 2))
    torch.testing.assert_close(told, all_inputs(prepared).flip(0))
    assert torch.equal(all_inputs(prepared), prepared.training_inputs(image_set().batch(indices), torch.zeros(N, 2)))
    with torch.no_grad():
        prepared.null_vector.add_(1)
    assert torch.equal(on_others.null(2).vector, prepared.null(2).vector)


def test_noise_on_vectors_has_the_size_it_is_given_and_belongs_to_the_row(clip: FakeClip, tmp_path: Path) -> None:
    conditioner = ClipVector(noise=0.5)
    conditioner.prepare(image_set(), str(tmp_path))
    batch = image_set().batch(torch.arange(N).repeat(50))
    uniform = torch.rand(len(batch.indices), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noisy = conditioner.training_inputs(batch, uniform)
    conditioner.noise = 0.0
    moved = conditioner(noisy).vector - conditioner(conditioner.training_inputs(batch, uniform)).vector
    assert float(moved.std()) == pytest.approx(0.5, rel=0.02)
    assert float(moved.mean()) == pytest.approx(0, abs=0.02)
    conditioner.noise = 0.5
    rows = torch.tensor([5, 2])
    some = conditioner.training_inputs(image_set().batch(batch.indices[rows]), uniform[rows])
    assert torch.equal(some, noisy[rows])
    asked = Request(prompts=["a rose"])
    said = conditioner.inputs(asked)
    conditioner.noise = 0.0
    assert torch.equal(said, conditioner.inputs(asked))  # texts have none


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_noise_that_is_none_is_refused(noise: float) -> None:
    with pytest.raises(LabError, match=r"conditioning\.noise"):
        ClipVector(noise=noise)


def test_the_config_and_the_weights_rebuild_it(prepared: ClipVector, clip: FakeClip, tmp_path: Path) -> None:
    record = ClipVector().prepare(image_set(), str(tmp_path))
    assert record == {"dim": DIM, "fingerprint": clip.fingerprint, "class_names": list(NAMES)}
    again = ClipVector(**record)
    again.load_state_dict(prepared.state_dict())
    inputs = again.inputs(Request(prompts=["a red rose"]))
    assert torch.equal(again(inputs).vector, prepared(prepared.inputs(Request(prompts=["a red rose"]))).vector)


def test_neither_the_clip_model_nor_the_set_is_saved_with_it(prepared: ClipVector) -> None:
    assert set(prepared.state_dict()) == {"null_vector", "mean", "std", "text_mean", "pictures"}
    assert [name for name, _ in prepared.named_parameters()] == ["null_vector"]


def test_training_before_preparing_is_an_error() -> None:
    with pytest.raises(ValueError, match="prepare"):
        ClipVector().training_inputs(image_set().batch(torch.arange(2)), torch.zeros(2, 2))


# -- the null ----------------------------------------------------------------------------------------


def test_dropped_rows_become_the_learned_null(prepared: ClipVector) -> None:
    prepared.null_vector.data = torch.arange(DIM).float()
    inputs = all_inputs(prepared)[:3]
    vector = prepared(inputs, torch.tensor([False, True, False])).vector
    assert torch.equal(vector[1], prepared.null_vector)
    assert torch.equal(vector[[0, 2]], prepared(inputs).vector[[0, 2]])
    assert torch.equal(prepared.null(3).vector, prepared.null_vector.expand(3, DIM))
    vector[1].sum().backward()
    assert prepared.null_vector.grad is not None and bool((prepared.null_vector.grad == 1).all())


# -- requests ----------------------------------------------------------------------------------------


def test_the_shift_brings_captions_onto_the_pictures(prepared: ClipVector) -> None:
    captions = list(image_set().captions)
    shifted = prepared(prepared.inputs(Request(prompts=captions))).vector
    prepared.modality_shift = False
    plain = prepared(prepared.inputs(Request(prompts=captions))).vector
    assert float(shifted.mean(dim=0).norm()) < 0.5  # the shift was measured with other captions of these pictures
    assert float(plain.mean(dim=0).norm()) > 3  # outside the cloud that the network was trained on
    torch.testing.assert_close(shifted - shifted.mean(dim=0), plain - plain.mean(dim=0), rtol=1e-3, atol=1e-4)


def test_without_the_shift_a_prompt_is_its_vector(prepared: ClipVector, clip: FakeClip) -> None:
    prepared.modality_shift = False
    inputs = prepared.inputs(Request(prompts=["a red rose", "a daisy"]))
    assert torch.equal(inputs, clip.encode_text(["a red rose", "a daisy"]))


def test_a_class_is_asked_for_by_a_sentence(prepared: ClipVector, clip: FakeClip) -> None:
    by_class = prepared.inputs(Request(classes=["daisy", 0]))
    assert clip.asked[-2:] == [f"a photo of a {name}, a type of flower" for name in ("daisy", "rose")]
    prepared.class_names = ("orchid?",)
    prepared.inputs(Request(classes=[0]))
    assert clip.asked[-1] == "a photo of an orchid, a type of flower"  # as training says it
    prepared.class_names = NAMES
    prepared.inputs(Request(classes=["daisy", 0]))
    assert torch.equal(by_class, prepared.inputs(Request(prompts=clip.asked[-2:])))
    with pytest.raises(LabError, match="classes=tulip: no such class"):
        prepared.inputs(Request(classes=["tulip"]))


def test_a_training_picture_asks_for_what_it_was_in_training(prepared: ClipVector, tmp_path: Path) -> None:
    asked = prepared.inputs(Request(images=pictures(3)))
    torch.testing.assert_close(asked, all_inputs(prepared)[:3])
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for picture, file in zip(pictures(3), files, strict=True):
        picture.save(file)
    torch.testing.assert_close(prepared.inputs(Request(images=[files[0], *map(str, files[1:])])), asked)


def test_pictures_of_any_shape_are_asked_for_by_their_middle_square(prepared: ClipVector) -> None:
    square = pictures(1)[0].resize((8, 8), Image.Resampling.NEAREST)
    wide = Image.new("RGB", (16, 8), "white")
    wide.paste(square, (4, 0))
    torch.testing.assert_close(prepared.inputs(Request(images=[wide])), prepared.inputs(Request(images=[square])))
    assert prepared.inputs(Request(images=[Image.new("L", (5, 9))])).shape == (1, DIM)


@pytest.mark.parametrize("mode", ["I;16", "RGBA"])
def test_an_open_picture_is_the_same_as_its_file(prepared: ClipVector, tmp_path: Path, mode: str) -> None:
    grey = torch.arange(64).reshape(8, 8).numpy()
    deep = Image.fromarray((grey * 1000).astype("uint16"))
    clear = Image.merge("RGBA", [Image.fromarray((grey * factor).astype("uint8")) for factor in (4, 2, 3, 1)])
    picture = deep if mode == "I;16" else clear
    assert picture.mode == mode
    picture.save(tmp_path / "p.png")
    asked = prepared.inputs(Request(images=[tmp_path / "p.png"]))
    assert not torch.equal(asked, prepared.inputs(Request(images=[Image.new("RGB", (8, 8), "white")])))
    torch.testing.assert_close(prepared.inputs(Request(images=[picture])), asked)


def test_pictures_that_a_clip_cannot_tell_apart_are_refused(clip: FakeClip, tmp_path: Path) -> None:
    images = image_set()
    alike = replace(images, pixels=torch.full_like(images.pixels, 7), fingerprint="alike")
    with pytest.raises(LabError, match="the same vector for all pictures"):
        ClipVector().prepare(alike, str(tmp_path))


def test_a_missing_picture_is_named(prepared: ClipVector, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"nowhere\.png") as error:
        prepared.inputs(Request(images=[tmp_path / "nowhere.png"]))
    assert "\n" not in str(error.value)


def test_no_request_is_refused(prepared: ClipVector) -> None:
    with pytest.raises(LabError, match="this run is CLIP-conditional: give prompts="):
        prepared.inputs(Request())


# -- which CLIP --------------------------------------------------------------------------------------


def test_the_clip_of_the_run_is_demanded(clip: FakeClip) -> None:
    conditioner = ClipVector(pretrained="elsewhere", dim=DIM, fingerprint="0123456789abcdef")
    with pytest.raises(LabError, match=r"conditioning.pretrained=elsewhere: weights f+, but") as error:
        conditioner.inputs(Request(prompts=["a rose"]))
    assert "0123456789abcdef" in str(error.value) and "\n" not in str(error.value)
    clip.whole = "0123456789abcdef"  # it is that one without some words
    assert ClipVector(pretrained="elsewhere", dim=DIM, fingerprint=clip.whole).clip is clip
    assert ClipVector(dim=DIM, fingerprint=clip.fingerprint).inputs(Request(prompts=["a rose"])).shape == (
        1,
        DIM,
    )


def test_clip_is_loaded_once_and_only_when_a_request_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(model: str, pretrained: str) -> FakeClip:
        loaded.append((model, pretrained))
        return FakeClip()

    monkeypatch.setattr(clip_module, "load_clip", load)
    conditioner = ClipVector("ViT-B-32", "some_tag", dim=DIM)
    conditioner.null(2)
    assert loaded == []
    conditioner.inputs(Request(prompts=["a rose"]))
    conditioner.inputs(Request(prompts=["a daisy"]))
    assert loaded == [("ViT-B-32", "some_tag")]
