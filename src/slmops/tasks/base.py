"""What a task kind must say about itself: how to ask, how to read the answer, how to judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from slmops.tasks.figures import Figure

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""

Row = dict[str, Any]
"""`{"id": str, "input": str, "output": answer}`; rows of the pool have no `output`."""


@dataclass(frozen=True)
class ParseFailure:
    """An answer that does not have the form the task asks for.

    Attributes:
        reason: what is wrong with it.
        readable: the text is in the task's format (JSON, say) and breaks only the rules for what may stand in it.
    """

    reason: str
    readable: bool = False


def messages(instruction: str | None, text: str) -> list[Message]:
    """A request: the instruction as system message, if there is one, then the text."""
    system = [{"role": "system", "content": instruction}] if instruction else []
    return [*system, {"role": "user", "content": text}]


class Task(Protocol):
    """One kind of task, bound to its settings. Knows nothing of where a model runs."""

    @property
    def max_answer_tokens(self) -> int:
        """Tokens of the longest answer."""

    def render(self, text: str) -> list[Message]:
        """The messages that ask for the answer to `text`."""

    def write(self, answer: Any) -> str:
        """The one canonical text of an answer: what a model is trained to write.

        Where several reference answers are given, it is that of the first.
        """

    def parse(self, text: str) -> Any | ParseFailure:
        """The answer that a model's text stands for; `parse(write(answer)) == answer`."""

    def label(self, answer: Any) -> str | None:
        """The class that stratifies splits and is told apart in the per-class table, if the task has one."""

    def check(self, answer: Any) -> str | None:
        """Why `answer` cannot be a reference answer, or None."""

    def judge(self, reference: Any, answer: Any | ParseFailure) -> Mapping[str, float]:
        """Columns of one row that add up over rows, e.g. exact match 0/1 and field counts."""

    def figures(self) -> tuple[Figure, ...]:
        """What judged rows are summed up to, the headline first.

        Those marked `compared` decide between models. All lie in 0..1.
        """

    def floor(self, train: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """Answers to `texts` by the trivial method for this task, fitted on `train`: what any model must beat."""

    def describe(self) -> dict[str, Any]:
        """Plain JSON from which `from_description` makes the same task; carried in a bundle."""


def metrics(task: Task, judged: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The task's figures over judged rows, the headline first.

    A figure that no row speaks to (field F1 where no row has fields) is left out.

    Raises:
        BadInput: there are no rows.
    """
    from slmops.tasks.figures import measured

    return measured(task.figures(), judged)
