"""A text gets one label out of a closed set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt

from slmops.errors import BadInput
from slmops.tasks.base import Message, ParseFailure, Row, messages

if TYPE_CHECKING:
    from slmops.tasks.figures import Figure


@dataclass(frozen=True)
class Classification:
    """The task of choosing one of `labels`.

    Attributes:
        labels: the closed set, at least two; no two differ in case or outer spaces alone.
        instruction: system message of every request, or None.
        max_answer_tokens: longest answer, in tokens.

    Raises:
        BadInput: the labels are not such a set.
    """

    kind: ClassVar[str] = "classification"

    labels: tuple[str, ...]
    instruction: str | None
    max_answer_tokens: PositiveInt

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise BadInput(f"a {self.kind} needs at least two labels, given: {list(self.labels)}")
        if not all(map(_key, self.labels)):
            raise BadInput("a label is empty")
        if len(self._by_key) < len(self.labels):
            twins = [label for label in self.labels if self._by_key[_key(label)] != label]
            raise BadInput(
                f"label {twins[0]!r} is like {self._by_key[_key(twins[0])]!r}" if twins else "a label is given twice",
                hint="labels must differ in more than case and outer spaces",
            )

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {_key(label): label for label in self.labels}

    def render(self, text: str) -> list[Message]:
        return messages(self.instruction, text)

    def write(self, answer: Any) -> str:
        return str(answer)

    def parse(self, text: str) -> Any | ParseFailure:
        """The label that `text` is, outer spaces and case aside."""
        label = self._by_key.get(_key(text))
        return ParseFailure(f"{text.strip()[:60]!r} is not one of the labels") if label is None else label

    def label(self, answer: Any) -> str | None:
        return str(answer)

    def check(self, answer: Any) -> str | None:
        return None if answer in self.labels else f"{str(answer)[:60]!r} is not one of the labels"

    def judge(self, reference: Any, answer: Any | ParseFailure) -> Mapping[str, float]:
        """`exact_match`, `valid_label`, and `tp:LABEL` and `tp`, or `fn:LABEL`, `fp:LABEL`, `fn` and `fp`."""
        if isinstance(answer, ParseFailure):
            return {"exact_match": 0.0, "valid_label": 0.0, f"fn:{reference}": 1.0, "fn": 1.0}
        if answer == reference:
            return {"exact_match": 1.0, "valid_label": 1.0, f"tp:{reference}": 1.0, "tp": 1.0}
        apart = {f"fn:{reference}": 1.0, f"fp:{answer}": 1.0, "fn": 1.0, "fp": 1.0}
        return {"exact_match": 0.0, "valid_label": 1.0, **apart}

    def figures(self) -> tuple[Figure, ...]:
        """`exact_match`, `accuracy` (the same), `macro_f1` over the labels that occur, `micro_f1`, `valid_label`.

        An answer that is no label is a miss of the wanted one, so micro-F1 is above accuracy where there are such.
        """
        from slmops.tasks.figures import Figure, macro_f1, micro_f1, share

        counts = tuple(f"{part}:{label}" for part in ("tp", "fp", "fn") for label in self.labels)
        return (
            share("exact_match", compared=True),
            Figure("accuracy", ("exact_match",)),
            Figure("macro_f1", counts, macro_f1, compared=True),
            Figure("micro_f1", ("tp", "fp", "fn"), micro_f1),
            share("valid_label"),
        )

    def floor(self, train: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """TF-IDF (1–2-grams) and logistic regression."""
        from slmops.tasks.floor import classify

        return list(classify([row["input"] for row in train], [row["output"] for row in train], texts))

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "instruction": self.instruction,
            "max_answer_tokens": self.max_answer_tokens,
        }


def _key(label: str) -> str:
    return label.strip().casefold()
