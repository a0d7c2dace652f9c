"""A sweep is the plain loop over its values, in one batch; and what is measured of it."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from experiments.subjects import Subjects, ask
from experiments.sweeps import Swept, called_out, frames, measure, sweep, values_of
from lab import LabError
from lab.model import DiffusionModel
from lab.parts import Parts

SETTINGS = {"num_inference_steps": 4, "sampler": "ddim", "guidance_interval": (0, 1), "batch_size": 7}


def swept(model: DiffusionModel, folder: Path, knob: str, values: Sequence[float], **more: float) -> Swept:
    subjects = ask(model, ["rose", "tulip"], None)
    return sweep(model, subjects, knob, values, 3, {**SETTINGS, **more}, Parts(folder, {"knob": knob}))


@pytest.mark.parametrize(
    ("knob", "fixed"), [("guidance_scale", {"rescale_phi": 0.3}), ("rescale_phi", {"guidance_scale": 4.0})]
)
def test_it_equals_a_loop_over_the_values(
    model: DiffusionModel, tmp_path: Path, knob: str, fixed: dict[str, float]
) -> None:
    values = [-3.0, 0.0, 1.0, 5.0]
    found = swept(model, tmp_path, knob, values, **fixed)
    assert found.images.shape == (4, 2, 3, 3, 8, 8) and found.ratio.shape == (4, 2, 3, 4)
    for value, images in zip(values, found.images, strict=True):
        alone = model.sample(
            classes=["rose", "tulip"], count=3, numbers=[0, 1, 2] * 2, output="tensor", **{**SETTINGS, knob: value},
            **fixed,
        )  # fmt: skip
        assert isinstance(alone, Tensor)
        assert float((images.flatten(0, 1) - alone).abs().max()) <= 1 / 255 + 1e-4  # kept in bytes


def test_the_gain_follows_from_r_and_phi(model: DiffusionModel, tmp_path: Path) -> None:
    found = swept(model, tmp_path, "rescale_phi", [-2.0, 0.0, 3.0], guidance_scale=4.0)
    phi = torch.tensor(found.values)[:, None, None, None]
    torch.testing.assert_close(found.gain, 1 + phi * (found.ratio - 1))
    assert bool((found.ratio < 1).any())


def test_it_goes_on_from_what_it_has(model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = swept(model, tmp_path / "a", "guidance_scale", [0.0, 2.0, 4.0])
    calls, sample = [], type(model).sample

    def interrupted(self: DiffusionModel, *args: object, **more: object) -> object:
        calls.append(len(more["numbers"]))  # type: ignore[arg-type]
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model), "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        swept(model, tmp_path / "b", "guidance_scale", [0.0, 2.0, 4.0])
    again = swept(model, tmp_path / "b", "guidance_scale", [0.0, 2.0, 4.0])
    assert calls == [7, 7, 4, 4]  # the third of three pieces alone was made again
    assert torch.equal(again.images, whole.images) and torch.equal(
        again.gain,
        whole.gain,
    )


def constructed() -> Swept:
    """Two values, two subjects, two seeds: greys that are equal at the first value and 0.4 apart at the second."""
    images = torch.zeros(2, 2, 2, 3, 4, 4)
    images[1, :, 1] = 0.4
    nothing = torch.full((2, 2, 2, 1), math.nan)
    return Swept([0.0, 1.0], images, torch.tensor([0.25, 0.5])[:, None, None].expand(2, 2, 2), nothing, nothing)


def test_measures_are_means_over_pictures() -> None:
    found = measure(constructed(), ["saturation", "clip_fraction", "diversity", "edge_energy"], {})
    assert found["saturation"] == [0, 0] and found["edge_energy"] == [0, 0]
    assert found["clip_fraction"] == [0.25, 0.5]
    assert found["diversity"] == pytest.approx([0, 0.4])


def test_scores_are_asked_about_each_pictures_own_subject() -> None:
    """At the second value the second seed's pictures are 0.4 bright; subject 1 counts ten times."""
    scores = {"accuracy": lambda images, which: images.mean(dim=(1, 2, 3)) * torch.tensor([1.0, 10.0])[which]}
    assert measure(constructed(), ["accuracy"], scores)["accuracy"] == pytest.approx([0, (0.4 + 4) / 4])


def test_values_are_exact_where_they_are_round() -> None:
    cfg = OmegaConf.create({"values": None, "first": -10.0, "last": 10.0, "points": 81})
    values = values_of(cfg)
    assert len(values) == 81 and {-10.0, -0.25, 0.0, 1.0, 10.0} <= set(values)
    assert values_of(OmegaConf.create({"values": [3, -1]})) == [3.0, -1.0]
    for wrong in ({"values": []}, {"values": [math.inf]}, {"first": 0.0, "last": 1.0, "points": 0}):
        with pytest.raises(LabError):
            values_of(OmegaConf.create(wrong))


def test_called_out_are_the_nearest_once_each() -> None:
    some = Swept([-2.0, -1.0, 0.5, 4.0], *[torch.zeros(1)] * 4)
    assert called_out(some, (-10, -2, 0, 1, 10)) == [0, 2, 3]


def test_frames_have_one_size_whatever_the_value(model: DiffusionModel) -> None:
    subjects = Subjects(["a rose", "x" * 60], model.condition(classes=[0, 1]), [["a rose"], ["x"]])
    pictures = frames(constructed(), subjects, "guidance scale", {"one": [0.0, 1.0]})
    assert len(pictures) == 2 and len({picture.size for picture in pictures}) == 1
    assert pictures[0].tobytes() != pictures[1].tobytes()
