"""What people see of work in progress: bars on a terminal, plain lines elsewhere and in a log.

Everything here goes to stderr or a log; stdout is for answers. Nothing is wider than 80 columns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from slmops.progress import Progress, Silent, Task

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

WIDTH = 80
_TITLE = 20


def screen(*, quiet: bool = False) -> Progress:
    """Progress for whoever watches this process: bars on a terminal, lines when stderr goes elsewhere."""
    if quiet:
        return Silent()
    if sys.stderr.isatty():
        return Bars()
    return Lines(lambda line: print(line, file=sys.stderr, flush=True))


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def amount(number: float) -> str:
    """Three digits or so: `0.31`, `7`, `512`, `12.3k`, `1.2M`."""
    for limit, scale, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(number) >= limit:
            return f"{number / scale:.1f}{suffix}"
    return f"{number:.0f}" if abs(number) >= 100 or number % 1 == 0 else f"{number:.3g}"


def size(count: float) -> str:
    """Bytes in the units of disk makers: `84.1 MB`."""
    for limit, suffix in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.1f} {suffix}"
    return f"{count:.0f} B"


def fit(text: str, width: int = WIDTH) -> str:
    """`text` on one line of at most `width` characters."""
    text = " ".join(text.split("\n"))
    return text if len(text) <= width else text[: width - 1] + "…"


class _Count:
    """How far a task is, and how fast."""

    def __init__(self, title: str, total: float | None, unit: str, clock: Callable[[], float]) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0.0
        self.figures: dict[str, float] = {}
        self._clock = clock
        self._start = clock()

    def add(self, amount: float, figures: Mapping[str, float]) -> None:
        self.done += amount
        self.figures.update(figures)

    @property
    def seconds(self) -> float:
        return self._clock() - self._start

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    def where(self) -> str:
        """`12.3k of 120k tokens`."""
        of = "" if self.total is None else f" of {amount(self.total)}"
        return f"{amount(self.done)}{of} {self.unit}"

    def moving(self) -> str:
        left = ""
        if self.total and self.done:
            left = f", {duration(max(self.total - self.done, 0) / max(self.rate, 1e-9))} left"
        return fit(f"{self.title}: {self.where()}, {amount(self.rate)}/s{left}{self._shown()}")

    def ended(self) -> str:
        if not self.unit:  # work that cannot be counted only takes its time
            return fit(f"{self.title}: {duration(self.seconds)}")
        speed = f" ({amount(self.rate)}/s)"
        return fit(f"{self.title}: {self.where()} in {duration(self.seconds)}{speed}{self._shown()}")

    def _shown(self) -> str:
        return "".join(f", {name} {amount(value)}" for name, value in self.figures.items())


class Lines:
    """Progress as plain lines: one when a task starts, now and then one while it goes, one when it ends."""

    def __init__(
        self, write: Callable[[str], None], *, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`every`: seconds between two lines of one task, at least."""
        self._write, self._every, self._clock = write, every, clock

    def note(self, text: str) -> None:
        self._write(text)

    @contextmanager
    def task(self, title: str, total: float | None, unit: str) -> Iterator[Task]:
        count = _Count(title, total, unit, self._clock)
        self._write(fit(f"{title}: {'started' if total is None else f'{amount(total)} {unit}'}"))
        try:
            yield _LineTask(count, self._write, self._every)
        finally:
            self._write(count.ended())


class _LineTask:
    def __init__(self, count: _Count, write: Callable[[str], None], every: float) -> None:
        self._count, self._write, self._every = count, write, every
        self._next = every

    def advance(self, amount: float = 1, **figures: float) -> None:
        self._count.add(amount, figures)
        if self._count.seconds >= self._next:
            self._next = self._count.seconds + self._every
            self._write(self._count.moving())


class Bars:
    """Progress as bars on a terminal. A bar disappears when its task ends, and one line stays."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = console or Console(stderr=True, highlight=False)
        self._bars: RichProgress = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[done]:>4}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}", style="dim"),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )
        self._open = 0

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str, total: float | None, unit: str) -> Iterator[Task]:
        count = _Count(title, total, unit, time.monotonic)
        bar = self._bars.add_task(fit(title, _TITLE), total=total, done="", rate="", figures="")
        if self._open == 0:
            self._bars.start()
        self._open += 1
        try:
            yield _Bar(self._bars, bar, count)
        finally:
            self._bars.remove_task(bar)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()
            self.note(count.ended())


class _Bar:
    def __init__(self, bars: RichProgress, bar: TaskID, count: _Count) -> None:
        self._bars, self._bar, self._count = bars, bar, count

    def advance(self, amount: float = 1, **figures: float) -> None:
        self._count.add(amount, figures)
        self._bars.update(self._bar, advance=amount, done=self._done(), rate=self._rate(), figures=self._figures())

    def _done(self) -> str:
        count = self._count
        if count.total:
            return f"{count.done / count.total:.0%}"
        return amount(count.done) if count.unit else ""

    def _rate(self) -> str:
        return fit(f"{amount(self._count.rate)} {self._count.unit}/s", 16) if self._count.unit else ""

    def _figures(self) -> str:
        return fit(" ".join(f"{name} {amount(value)}" for name, value in self._count.figures.items()), 14)


class Both:
    """Two kinds of progress for the same work, such as a screen and a log."""

    def __init__(self, first: Progress, second: Progress) -> None:
        self._both = (first, second)

    def note(self, text: str) -> None:
        for progress in self._both:
            progress.note(text)

    @contextmanager
    def task(self, title: str, total: float | None, unit: str) -> Iterator[Task]:
        with ExitStack() as stack:
            yield _BothTask([stack.enter_context(progress.task(title, total, unit)) for progress in self._both])


class _BothTask:
    def __init__(self, tasks: list[Task]) -> None:
        self._tasks = tasks

    def advance(self, amount: float = 1, **figures: float) -> None:
        for task in self._tasks:
            task.advance(amount, **figures)
