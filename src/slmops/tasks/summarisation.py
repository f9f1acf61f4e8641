"""A text becomes a shorter one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from slmops.tasks.base import Row
from slmops.tasks.open_answer import Generation


@dataclass(frozen=True)
class Summarisation(Generation):
    """The task of saying a text in fewer words."""

    kind: ClassVar[str] = "summarisation"

    def floor(self, train: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """The first sentences of the text, as many as the training rows' summaries have (median)."""
        from slmops.tasks.floor import first_sentences

        return first_sentences([self.write(row["output"]) for row in train], texts)
