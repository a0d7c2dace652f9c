"""A classifier of the lab's own, trained from zero on real pictures, to judge generated ones by."""

from lab.judging.judge import OWN_JUDGE, Judge, load_judge, save_judge
from lab.judging.network import JudgeNetwork
from lab.judging.recognition import recognised
from lab.judging.task import JudgeTask

__all__ = ["OWN_JUDGE", "Judge", "JudgeNetwork", "JudgeTask", "load_judge", "recognised", "save_judge"]
