"""What work in another process tells those who watch it here, as lines of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from slmops import errors
from slmops.errors import SlmopsError
from slmops.pipeline.stage import goes_on
from slmops.progress import Evaluated, Progress, Task


class Sender:
    """The side of the work: a `Progress`, and an `Evaluated`, whose calls become lines."""

    def __init__(self, send: Callable[[str], object]) -> None:
        self._send = send

    def tell(self, kind: str, *what: Any) -> None:
        self._send(json.dumps([kind, *what]))

    def note(self, text: str) -> None:
        self.tell("note", text)

    @contextmanager
    def task(self, title: str, total: float | None, unit: str) -> Iterator[Task]:
        self.tell("begin", title, total, unit)
        try:
            yield self
        finally:
            self.tell("end")

    def advance(self, amount: float = 1, **figures: float) -> None:
        self.tell("advance", amount, figures)

    def evaluated(self, evaluations: int, loss: float) -> None:
        """It goes on meanwhile: who looks on ends it from outside."""
        self.tell("evaluated", evaluations, loss)

    def failed(self, error: SlmopsError) -> None:
        kind = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__)
        self.tell("failed", kind.__name__, str(error), error.hint)


class Receiver:
    """The side of who watches: does with `progress` and `evaluated` what was done there."""

    def __init__(self, progress: Progress, evaluated: Evaluated | None) -> None:
        self._progress, self._evaluated = progress, evaluated or goes_on
        self._open: list[tuple[ExitStack, Task]] = []
        self.figures: Mapping[str, float | str] | None = None
        """What came of the work, when it is done."""

    def take(self, line: str) -> None:
        """Take one line.

        Raises:
            SlmopsError: what the work has failed by.
            Exception: what `evaluated` raises.
        """
        kind, *what = json.loads(line)
        if kind == "note":
            self._progress.note(*what)
        elif kind == "begin":
            stack = ExitStack()
            self._open.append((stack, stack.enter_context(self._progress.task(*what))))
        elif kind == "advance":
            amount, figures = what
            self._open[-1][1].advance(amount, **figures)
        elif kind == "end":
            self._open.pop()[0].close()
        elif kind == "evaluated":
            self._evaluated(*what)
        elif kind == "done":
            (self.figures,) = what
        elif kind == "failed":
            name, message, hint = what
            raise getattr(errors, name)(message, hint=hint)

    def close(self) -> None:
        """End what is open: the work has ended, or begins anew."""
        while self._open:
            self._open.pop()[0].close()
