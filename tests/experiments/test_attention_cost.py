"""Ways to attend that agree, what they keep, how that grows, and the command."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from experiments import attention_cost, attentions
from experiments.attention_cost import about_memory, about_time
from experiments.attention_drawing import fit, frames, rounded, sides
from experiments.attentions import (
    CONTENDERS,
    FUSED,
    KEPT,
    LINEAR,
    OURS,
    Row,
    Sizes,
    given,
    in_turn,
    saved_bytes,
    there_and_back,
)
from lab.config import compose
from lab.errors import LabError
from lab.render import read_provenance

Command = Callable[..., tuple[int, str]]
SMALL = Sizes(batch_size=1, channels=8, head_dim=4)  # two heads


def kept(name: str, resolution: int, sizes: Sizes = SMALL) -> int:
    """Bytes that a contender keeps."""
    return saved_bytes(*given(CONTENDERS[name](sizes.channels, sizes.head_dim), sizes, resolution))


def test_all_ways_of_full_attention_are_one_function() -> None:
    ours, x = given(CONTENDERS[OURS](8, 4), SMALL, 6)
    nn.init.normal_(ours.out.weight)
    wanted, gradient = [x, ours.qkv.weight], torch.randn_like(x)
    expected = torch.autograd.grad(ours(x), wanted, gradient)
    for name in (KEPT, FUSED):
        other, _ = given(CONTENDERS[name](8, 4), SMALL, 6)
        other.load_state_dict(ours.state_dict())
        torch.testing.assert_close(other(x), ours(x))
        for one, found in zip(expected, torch.autograd.grad(other(x), [x, other.qkv.weight], gradient), strict=True):
            torch.testing.assert_close(found, one, atol=1e-4, rtol=1e-4)


def test_what_is_kept_is_counted_once_and_without_parameters() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Conv2d(8, 8, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(x) + x * x.transpose(2, 3)  # x three times, two of them as views

    module, x = given(Products(), SMALL, 5)
    assert saved_bytes(module, x) == 4 * 8 * 5 * 5


def test_kept_weights_grow_with_the_square_of_the_places_and_all_else_with_them() -> None:
    sides = (12, 24, 36)
    grown = {name: fit([(side**2, kept(name, side)) for side in sides])[0] for name in (KEPT, FUSED, LINEAR)}
    assert 1.85 < grown[KEPT] < 2
    assert grown[LINEAR] == pytest.approx(1, abs=0.03)
    assert grown[FUSED] == pytest.approx(1, abs=0.03)
    # Two heads' weights of four bytes are all that grows so.
    others = [(side**2, kept(KEPT, side) - 2 * 4 * side**4) for side in sides]
    assert fit(others)[0] == pytest.approx(1, abs=0.03)


def test_twice_the_batch_keeps_twice_as_much() -> None:
    for name in (KEPT, FUSED, LINEAR):
        assert kept(name, 16, Sizes(4, 8, 4)) == pytest.approx(2 * kept(name, 16, Sizes(2, 8, 4)), rel=0.02)


def test_the_lab_goes_one_of_the_two_ways() -> None:
    for side in (8, 16, 36):
        ours, ways = kept(OURS, side), [kept(KEPT, side), kept(FUSED, side)]
        assert any(ours == pytest.approx(way, rel=0.05) for way in ways), (side, ours, ways)


def test_a_step_goes_back_to_the_input_and_to_every_parameter() -> None:
    module, x = given(CONTENDERS[LINEAR](8, 4), SMALL, 4)
    seen: list[str] = []
    x.register_hook(lambda gradient: seen.append("x"))
    for name, parameter in module.named_parameters():
        parameter.register_hook(lambda gradient, name=name: seen.append(name))
    there_and_back(module, x)()
    assert sorted(seen) == sorted(["x", *dict(module.named_parameters())])
    assert x.grad is None and all(parameter.grad is None for parameter in module.parameters())


def test_steps_take_turns_and_the_fastest_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    # Of a call 0.01 and 0.5 s, so that a round is two of the first and one of the second; then three rounds of both.
    clock = iter([0.01, 0.5, 0.04, 0.6, 0.03, 0.4, 0.06, 0.7])

    def seconds(step: Callable[[], None]) -> float:
        step()
        return next(clock)

    monkeypatch.setattr(attentions, "seconds", seconds)
    best = in_turn([lambda: calls.append("a"), lambda: calls.append("b")], rounds=3)
    assert best == pytest.approx([0.015, 0.4])
    assert "".join(calls) == "ab" + "ab" + "aab" * 3  # first a call each that does not count


def test_exponents_are_those_of_the_largest_three() -> None:
    exponent, factor = fit([(1, 100.0), *((places, 3.0 * places**1.5) for places in (16, 64, 256))])
    assert (exponent, factor) == (pytest.approx(1.5), pytest.approx(3))
    assert fit([(4, 8.0), (16, 32.0)]) == (pytest.approx(1), pytest.approx(2))


def constructed() -> list[Row]:
    """Costs as they should be: N^2 and N, and the lab going over to the fused kernel at 32."""
    rows = []
    for side in (8, 16, 32):
        places = side**2
        kept_mib, fused_mib = places**2 / 1e4, places / 100
        rows += [
            Row(KEPT, side, places, places**2 / 1e3, kept_mib, None),
            Row(FUSED, side, places, places**2 / 2e3, fused_mib, None),
            Row(LINEAR, side, places, places / 10, places / 50, None),
            Row(OURS, side, places, places**2 / 1e3, kept_mib if side < 32 else fused_mib, None),
        ]
    return rows


def test_words_follow_from_the_rows() -> None:
    time, memory = about_time(constructed()), about_memory(constructed())
    assert "grows as N^2.00 (full, weights kept), N^1.00 (full, fused kernel), N^1.00 (linear)" in memory
    assert "keeps the weights at 8×8, 16×16, and takes the fused kernel at 32×32" in memory
    assert "grows as N^2.00 (full, weights kept), N^2.00 (full, fused kernel), N^1.00 (linear)" in time
    assert "At 32×32" in time and "10 to one" in time


@pytest.mark.slow
def test_squares_are_as_large_as_what_is_kept() -> None:
    costs = {row.attention: row for row in constructed() if row.resolution == 32}
    drawn = sides(costs, costs[KEPT].saved_mib)
    assert list(drawn) == [KEPT, FUSED, LINEAR] and drawn[KEPT] == 1
    assert drawn[FUSED] ** 2 == pytest.approx(costs[FUSED].saved_mib / costs[KEPT].saved_mib)
    assert {frame.size for frame in frames(constructed())} == {frames(constructed())[0].size}
    assert [rounded(number) for number in (1903.4, 99.94, 0.1412)] == ["1,903", "99.9", "0.141"]


def test_the_command_writes_table_plots_and_page(
    run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attentions, "peak_mib", lambda step: 2.5)  # as a GPU would tell
    monkeypatch.setattr(attentions, "A_ROUND", 1e-4)
    small = ("resolutions=[8,4]", "beyond=[6]", "channels=8", "head_dim=4", "rounds=1")
    code, said = run_command(attention_cost.main, f"out={tmp_path / 'out'}", *small)
    assert code == 0, said
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".json")
    assert names == ["attention_cost.csv", "attention_cost.mp4", "index.html", "memory.png", "peak.png", "time.png"]
    with (tmp_path / "out" / "attention_cost.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["attention"], row["resolution"]) for row in rows] == [
        *((name, "4") for name in CONTENDERS),
        *((name, "6") for name in (FUSED, LINEAR)),
        *((name, "8") for name in CONTENDERS),
    ]
    assert all(float(row["milliseconds"]) > 0 and float(row["saved_mib"]) > 0 for row in rows)
    assert {row["peak_mib"] for row in rows} == {"2.5"}
    assert read_provenance(tmp_path / "out" / "peak.png")["channels"] == 8
    assert "full attention keeps the weights at 4×4" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("resolutions=[]", "resolutions=[]: name two or more"),
        ("resolutions=[8]", "resolutions=[8]: name two or more"),
        ("resolutions=[8,8]", "resolutions=[8, 8]: name two or more, each once"),
        ("resolutions=[1,8]", "resolutions=[1, 8]: name two or more"),
        ("resolutions=[8,2000]", "resolutions=[8, 2000]: 2000 takes"),
        ("beyond=[32]", "beyond=[32]: name sides of at least 2 that resolutions does not have"),
        ("beyond=[-1]", "beyond=[-1]: name sides of at least 2"),
        ("beyond=[100000]", "beyond=[100000]: 100000 takes"),
        ("channels=0", "channels=0: use at least 1"),
        ("head_dim=20", "head_dim=20: channels=64 do not split into 3 heads"),
        ("rounds=-1", "rounds=-1: use at least 1"),
        ("fps=inf", "fps=inf: use more than 0"),
        ("video=avi", "video=avi: use mp4 or gif"),
        ("batch_size=1.5", "batch_size=1.5: must be int"),
        ("out=", "out=: is empty; give it a value"),
    ],
)
def test_mistakes_are_one_line(
    run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run_command(attention_cost.main, override)
    assert code == 2 and words in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_tells_nothing_is_taken_at_the_users_word(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose("attention_cost", ["resolutions=[8,2000]"])
    with pytest.raises(LabError):
        attention_cost.check(cfg)
    monkeypatch.setattr(attention_cost, "memory_here", lambda: math.inf)
    attention_cost.check(cfg)
