"""A text gets one label out of a closed set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import PositiveInt

from slmops.errors import BadInput
from slmops.tasks.base import Message, ParseFailure, Row, messages, total


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

    labels: tuple[str, ...]
    instruction: str | None
    max_answer_tokens: PositiveInt

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise BadInput(f"a classification needs at least two labels, given: {list(self.labels)}")
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
        """`exact_match`, `valid_label`, and `tp:LABEL`, or `fn:LABEL` and `fp:LABEL`."""
        if isinstance(answer, ParseFailure):
            return {"exact_match": 0.0, "valid_label": 0.0, f"fn:{reference}": 1.0}
        if answer == reference:
            return {"exact_match": 1.0, "valid_label": 1.0, f"tp:{reference}": 1.0}
        return {"exact_match": 0.0, "valid_label": 1.0, f"fn:{reference}": 1.0, f"fp:{answer}": 1.0}

    def metrics(self, judged: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
        """`exact_match`, `accuracy` (the same), `macro_f1` over the labels that occur, and `valid_label`."""
        sums, rows = total(judged), len(judged)
        f1 = [_f1(sums, label) for label in self.labels if any(sums[f"{part}:{label}"] for part in ("tp", "fp", "fn"))]
        accuracy = sums["exact_match"] / rows
        return {
            "exact_match": accuracy,
            "accuracy": accuracy,
            "macro_f1": sum(f1) / len(f1),
            "valid_label": sums["valid_label"] / rows,
        }

    def floor(self, train: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """TF-IDF (1–2-grams) and logistic regression."""
        from slmops.tasks.floor import classify

        return list(classify([row["input"] for row in train], [row["output"] for row in train], texts))

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "classification",
            "labels": list(self.labels),
            "instruction": self.instruction,
            "max_answer_tokens": self.max_answer_tokens,
        }


def _key(label: str) -> str:
    return label.strip().casefold()


def _f1(sums: Counter[str], label: str) -> float:
    hits = sums[f"tp:{label}"]
    return 2 * hits / (2 * hits + sums[f"fp:{label}"] + sums[f"fn:{label}"])
