from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from slmops.console import Bars, Both, Lines, amount, duration, fit, screen, size
from slmops.progress import Silent


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_say_start_now_and_then_and_the_end() -> None:
    clock, lines = Clock(), []
    with Lines(lines.append, every=10, clock=clock).task("train student", 120_000, "tokens") as task:
        for second in range(1, 31):
            clock.now = second
            task.advance(4_000, loss=1 / second)
    assert lines == [
        "train student: 120.0k tokens",
        "train student: 40.0k of 120.0k tokens, 4000/s, 20 s left, loss 0.1",
        "train student: 80.0k of 120.0k tokens, 4000/s, 10 s left, loss 0.05",
        "train student: 120.0k of 120.0k tokens, 4000/s, 0.0 s left, loss 0.0333",
        "train student: 120.0k of 120.0k tokens in 30 s (4000/s), loss 0.0333",
    ]


def test_lines_without_an_end_in_sight() -> None:
    clock, lines = Clock(), []
    with Lines(lines.append, clock=clock).task("read", None, "rows") as task:
        clock.now = 20
        task.advance(10)
    assert lines == ["read: started", "read: 10 rows, 0.5/s", "read: 10 rows in 20 s (0.5/s)"]


def test_a_task_that_fails_says_how_far_it_came() -> None:
    clock, lines = Clock(), []

    def fail() -> None:
        with Lines(lines.append, clock=clock).task("read", 10, "rows") as task:
            clock.now = 2
            task.advance(4)
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        fail()
    assert lines[-1] == "read: 4 of 10 rows in 2.0 s (2/s)"


def test_no_line_is_wider_than_a_terminal() -> None:
    clock, lines = Clock(), []
    with Lines(lines.append, every=1, clock=clock).task("t" * 100, 10**12, "tokens") as task:
        for _ in range(3):
            clock.now += 1
            task.advance(1e6, a_very_long_name_of_a_figure=1.23456789e-7, loss=2)
    assert len(lines) == 5
    assert all(len(line) <= 80 for line in lines)


def terminal() -> tuple[Bars, io.StringIO]:
    output = io.StringIO()
    return Bars(Console(file=output, force_terminal=True, width=80, color_system=None)), output


def seen(output: io.StringIO) -> list[str]:
    """Every line that was ever on the terminal."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.getvalue()))


def test_bars_show_rate_figures_and_time_left_within_80_columns() -> None:
    bars, output = terminal()
    with bars.task("train the student for a very long time", 2_000_000, "tokens") as task:
        for _ in range(3):
            task.advance(123_456, loss=0.123456, rate=1e-5)
            bars._bars.refresh()
        bars.note("a note")
    lines = seen(output)
    assert all(len(line) <= 80 for line in lines), max(lines, key=len)
    bar = next(line for line in lines if "19%" in line)
    assert bar.startswith("train the student f…")
    assert "tokens/s" in bar
    assert "loss 0.123" in bar
    assert "a note" in (line.strip() for line in lines)
    assert lines[-2].startswith("train the student for a very long time: 370.4k of 2.0M tokens in ")


def test_bars_within_bars_and_one_after_another() -> None:
    bars, output = terminal()
    for number in (1, 2):
        with bars.task(f"outer {number}", 2, "parts") as outer:
            with bars.task(f"inner {number}", None, "rows") as inner:
                inner.advance(5)
                bars._bars.refresh()
            outer.advance()
    text = "\n".join(seen(output))
    for number in (1, 2):
        assert f"inner {number}: 5 rows in" in text
        assert f"outer {number}: 1 of 2 parts in" in text


def test_a_note_is_shown_as_it_is() -> None:
    bars, output = terminal()
    bars.note("[1/14] data:prepare [red]cached")
    assert output.getvalue() == "[1/14] data:prepare [red]cached\n"


def test_both_are_told() -> None:
    left: list[str] = []
    right: list[str] = []
    both = Both(Lines(left.append, clock=Clock()), Lines(right.append, clock=Clock()))
    both.note("hello")
    with both.task("read", 3, "rows") as task:
        task.advance(3)
    assert left == right == ["hello", "read: 3 rows", "read: 3 of 3 rows in 0.0 s (0/s)"]


def test_who_watches_decides(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(screen(quiet=True), Silent)
    screen().note("a line")
    assert capsys.readouterr() == ("", "a line\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.949, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (0.3141, "0.314"),
        (512.5, "512"),
        (1234.5, "1234"),
        (12_345, "12.3k"),
        (2.5e6, "2.5M"),
        (3e9, "3.0G"),
    ],
)
def test_amount(number: float, text: str) -> None:
    assert amount(number) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (84_100_000, "84.1 MB"), (2e9, "2.0 GB")])
def test_size(count: float, text: str) -> None:
    assert size(count) == text


def test_fit_keeps_one_line() -> None:
    assert fit("a\nb") == "a b"
    assert fit("abcdef", 4) == "abc…"
