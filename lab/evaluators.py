"""What looks at samples and says what they show: a CLIP, and a judge that knows the run's classes."""

from collections.abc import Sequence
from pathlib import Path

from lab import runs
from lab.clip import Clip, load_clip
from lab.conditioning import ClipConditioner
from lab.errors import LabError
from lab.judging import OWN_JUDGE, Judge, load_judge
from lab.model import DiffusionModel

OWN = {"flower_clip": runs.OWN_CLIP, "judge": OWN_JUDGE}  # by task, the folder of a run that holds what it trained
WEIGHTS = "model.safetensors"  # in it
FOLDER = "lab.data.Folder"


def trained_by(run: Path, task: str) -> Path:
    """The folder with the CLIP or judge that a run trained: its own, or the run's where it is an exported copy."""
    return run / OWN[task] if (run / OWN[task]).is_dir() else run


def clip_of(model: DiffusionModel, run: str | Path) -> Clip | None:
    """The CLIP that a run is conditioned by, else the reference one where it knows the same data; None if neither."""
    if isinstance(model.conditioner, ClipConditioner):
        return model.conditioner.clip.to(model.device)
    cfg, reference = runs.read_config(run), runs.REFERENCE / "flower_clip"
    name = "" if cfg.data["_target_"] == FOLDER else runs.set_of(cfg)  # a folder may be called like any set
    if name and runs.clip_trained_on(reference) == name:
        return load_clip("flower_clip", str(reference)).to(model.device)
    return None


def judge_of(class_names: Sequence[str], folder: str | Path | None = None) -> Judge | None:
    """The judge in `folder` or in the run there; None: the reference judge, where it knows these classes.

    None where no reference judge does. Raises LabError where `folder` has no sound judge, or one of other classes.
    """
    if folder is None:
        reference = runs.REFERENCE / "judge"
        judge = load_judge(reference) if reference.is_dir() else None
        return judge if judge is not None and judge.class_names == tuple(class_names) else None
    judge = load_judge(trained_by(Path(folder), "judge"))
    if judge.class_names != tuple(class_names):
        advice = "python -m lab.train +experiment=judge with the run's data trains one that does"
        raise LabError(f"judge={folder}: it knows other classes than the run's data have; {advice}")
    return judge
