"""The checklist as a table of plain text that fits a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from slmops.console import WIDTH, fit
from slmops.evaluate.checklist.line import Line

_NAME, _STATE = 25, 8
_REST = WIDTH - _NAME - _STATE


def table(lines: Sequence[Line]) -> str:
    """A line per check: its name, its state and its figure; below it the bound, and what else there is to know."""
    shown = []
    for line in lines:
        head = line.figure or line.detail
        shown += _row(line.name, line.state, head)
        if line.bound:
            shown += _row("", "", f"bound: {line.bound}")
        if line.figure and line.detail:
            shown += _row("", "", line.detail)
    counts = {state: sum(line.state == state for line in lines) for state in ("pass", "fail", "skipped")}
    shown.append(f"{counts['pass']} passed, {counts['fail']} failed, {counts['skipped']} skipped")
    return "\n".join(shown)


def _row(name: str, state: str, text: str) -> list[str]:
    # What a model wrote may hold anything, and a terminal obeys.
    plain = "".join(char if char.isprintable() else "·" for char in " ".join(text.split()))
    first, *more = textwrap.wrap(fit(plain, 4 * _REST), _REST) or [""]
    return [f"{name:<{_NAME}}{state:<{_STATE}}{first}".rstrip(), *(" " * (_NAME + _STATE) + part for part in more)]
