"""Timing two contenders in turn, and writing down what was measured on what."""

import logging
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

logger = logging.getLogger(__name__)
Step = Callable[[], None]
TURN = 2.0  # seconds


@dataclass(frozen=True)
class Row:
    """One comparison: what the lab's contender does, in units a second, beside another's."""

    measured: str
    ours: float
    other: str
    theirs: float
    ratio: float  # median over the rounds
    spread: str  # least and greatest ratio of a round


def faster_layout(make: Callable[[torch.memory_format], Step]) -> Step:
    """A peer in the memory layout that suits it better, so that the comparison is with its best."""
    steps = [make(layout) for layout in (torch.contiguous_format, torch.channels_last)]
    for step in steps:
        step()
    return min(steps, key=seconds)


def seconds(step: Step) -> float:
    """Wall-clock of one call."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def turns(step: Step) -> tuple[Step, int]:
    """A turn of about `TURN` seconds or of one call, and how many calls it is of; two calls before do not count.

    A contender is timed at the pace it keeps, not while it fetches back from memory what the other's turn drove out.
    """
    step()  # the first call also makes kernels and states
    calls = max(1, math.ceil(TURN / seconds(step)))

    def turn() -> None:
        for _ in range(calls):
            step()

    return turn, calls


def race(measured: str, ours: Step, other: str, theirs: Step, units: int, rounds: int) -> Row:
    """Both in turn; `units` are done by a call."""
    (our_turn, our_calls), (their_turn, their_calls) = turns(ours), turns(theirs)
    times = [(seconds(our_turn) / our_calls, seconds(their_turn) / their_calls) for _ in range(rounds)]
    ratios = [b / a for a, b in times]
    rates = [units / statistics.median(column) for column in zip(*times, strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    row = Row(measured, rates[0], other, rates[1], statistics.median(ratios), spread)
    logger.info("%s: %.1f/s, %s %.1f/s, ratio %.2f (%s)", measured, row.ours, other, row.theirs, row.ratio, spread)
    return row


def peak_memory() -> float:
    """GiB that this process has held at most, on the GPU where there is one; NaN where the system does not tell."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def markdown(rows: list[Row]) -> str:
    """The rows as a table for a README."""
    head = "| measured | ours, 1/s | beside | theirs, 1/s | ratio | spread |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + "".join(
        f"| {r.measured} | {r.ours:.1f} | {r.other} | {r.theirs:.1f} | {r.ratio:.2f} | {r.spread} |\n" for r in rows
    )


def machine(bf16: bool) -> dict[str, Any]:
    """What the figures were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "precision": "bf16" if bf16 else "fp32",
        "date": datetime.now(UTC).date().isoformat(),
    }
