"""Who is asked for, and how pictures of them are scored."""

import pytest
import torch

from experiments.subjects import Subjects, Verdict, ask
from experiments.switching import Pairs
from lab.conditioning import Condition
from lab.judging import Judge, JudgeNetwork
from lab.model import DiffusionModel


@pytest.fixture
def judge() -> Judge:
    """It says class 0 of dark pictures and class 2 of bright ones, with confidence 1 / (1 + 2 / e)."""

    class Brightness(JudgeNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            bright = (images.mean(dim=(1, 2, 3)) > 0).float()
            return torch.stack([1 - bright, torch.zeros_like(bright), bright], dim=1)

    return Judge(Brightness(3), ("rose", "daisy", "tulip"), 32, {})


def test_a_verdict_is_about_the_class_of_each_pictures_subject(judge: Judge) -> None:
    images = torch.tensor([-0.5, -0.5, 0.5, 0.5])[:, None, None, None].expand(4, 3, 32, 32)
    verdict = Verdict(judge, [2, 0])  # subject 0 is a tulip, subject 1 a rose
    which = torch.tensor([0, 1, 0, 1])
    assert verdict.right(images, which).tolist() == [0, 1, 1, 0]
    sure, unsure = torch.e / (torch.e + 2), 1 / (torch.e + 2)
    assert verdict.confidence(images, which).tolist() == pytest.approx([unsure, sure, sure, unsure])


def test_rows_keep_what_belongs_to_them(model: DiffusionModel) -> None:
    subjects = ask(model, ["tulip", 0], None)
    assert (subjects.names, subjects.classes) == (["tulip", "rose"], (2, 0))
    assert subjects.repeated(2).classes == (2, 2, 0, 0)
    on = subjects.moved(by=1)
    assert (on.names, on.classes) == (["rose", "tulip"], (0, 2))
    assert on.phrases == subjects.phrases[::-1]
    assert torch.equal(on.condition.vector, subjects.condition.vector.flip(0))


def test_a_class_and_a_prompt_of_its_name_are_told_apart() -> None:
    """Pieces that are kept for one must not be taken for the other: a CLIP hears them differently."""
    nothing = Condition(torch.zeros(1, 2))
    as_class = Subjects(["rose"], nothing, [["a rose", "a photo of a rose, a type of flower"]], (3,))
    as_prompt = Subjects(["rose"], nothing, [["rose"]])
    assert as_class.names == as_prompt.names and as_class.facts != as_prompt.facts
    assert Pairs(as_class, as_class).facts != Pairs(as_class, as_prompt).facts
