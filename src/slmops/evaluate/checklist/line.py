"""One line of the checklist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True)
class Line:
    """What was asked of the bundle, and what came out.

    Attributes:
        name: of the check.
        state: `skipped` where nothing was decided; `detail` says why.
        figure: what was found, for people; empty where nothing was measured.
        bound: what the figure must keep to, for people.
        detail: what else to know: the worst cases, or why the line was skipped.
        values: the figure's numbers by name, with their units in the names.
    """

    name: str
    state: State
    figure: str = ""
    bound: str = ""
    detail: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def judged(passes: bool) -> State:
    """The state of a line that was measured."""
    return "pass" if passes else "fail"
