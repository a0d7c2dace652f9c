"""Where an evaluation's samples lie, and how many they are where nobody says."""

from pathlib import Path

from lab.config import compose
from lab.evaluation.plan import folders_of, usual_n


def test_what_is_asked_otherwise_lies_apart() -> None:
    """Another seed or sampler does not take the place of what is there."""
    run = Path("run")
    for overrides, name in (
        ([], "2"),
        (["n=2040"], "2"),
        (["n=100"], "2_n-100"),
        (["seed=1", "sampler=ddim"], "2_sampler-ddim_seed-1"),
        (["neighbours=0"], "2_neighbours-0"),
        (["guidance_interval=[0.1,0.8]", "space=timm/resnet18"], "2_guidance_interval-0.1-0.8"),
    ):
        cfg = compose("evaluate", [f"run={run}", *overrides])
        cfg.n = cfg.n or usual_n(7169)
        made, found = folders_of(cfg, 2.0, usual_n(7169))
        assert made == run / "evaluation" / name
        assert found.name == name + ("_timm_resnet18" if "space=timm/resnet18" in overrides else "")
    made, found = folders_of(compose("evaluate", [f"run={run}", "seed=1", "out=there"]), 2.0, 2040)
    assert made == found == Path("there")


def test_of_few_pictures_as_many_are_sampled_as_leave_a_reference() -> None:
    assert [usual_n(count) for count in (7169, 4080, 500, 107)] == [2040, 2040, 250, 53]
