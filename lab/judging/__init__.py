"""A classifier of the lab's own, trained from zero on real pictures, to judge generated ones by."""

from lab.judging.judge import Judge, load_judge, save_judge
from lab.judging.network import JudgeNetwork
from lab.judging.task import JudgeTask

__all__ = ["Judge", "JudgeNetwork", "JudgeTask", "load_judge", "save_judge"]
