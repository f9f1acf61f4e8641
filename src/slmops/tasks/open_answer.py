"""Tasks whose answer is a free text, judged by how much of a reference it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt

from slmops.tasks.base import Message, ParseFailure, Row, messages
from slmops.tasks.references import check_references, references

if TYPE_CHECKING:
    from slmops.tasks.figures import Figure


@dataclass(frozen=True)
class FreeText:
    """What all tasks share whose answer is a text of any content, with one or more right ones.

    Attributes:
        instruction: system message of every request, or None.
        max_answer_tokens: longest answer, in tokens.
    """

    kind: ClassVar[str]

    instruction: str | None
    max_answer_tokens: PositiveInt

    def render(self, text: str) -> list[Message]:
        return messages(self.instruction, text)

    def write(self, answer: Any) -> str:
        return references(answer)[0]

    def parse(self, text: str) -> Any | ParseFailure:
        return text.strip() or ParseFailure("the answer is empty")

    def label(self, answer: Any) -> str | None:  # noqa: ARG002 - answers are no classes
        return None

    def check(self, answer: Any) -> str | None:
        return check_references(answer)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "instruction": self.instruction, "max_answer_tokens": self.max_answer_tokens}


@dataclass(frozen=True)
class Generation(FreeText):
    """The task of writing a text."""

    kind: ClassVar[str] = "generation"

    def judge(self, reference: Any, answer: Any | ParseFailure) -> Mapping[str, float]:
        """The columns of `overlap`, and `valid_format`: there is an answer."""
        from slmops.tasks.overlap import overlap

        valid = not isinstance(answer, ParseFailure)
        return {**overlap(references(reference), str(answer) if valid else ""), "valid_format": float(valid)}

    def figures(self) -> tuple[Figure, ...]:
        """The figures of `overlap_figures`, and `valid_format`."""
        from slmops.tasks.figures import share
        from slmops.tasks.overlap import overlap_figures

        return (*overlap_figures(), share("valid_format"))

    def floor(self, train: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """The answer of the training row whose words are most like those asked (TF-IDF)."""
        from slmops.tasks.floor import nearest

        return nearest([row["input"] for row in train], [self.write(row["output"]) for row in train], texts)
