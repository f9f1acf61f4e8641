"""A question, perhaps with a context, gets a short answer."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from slmops.tasks.base import ParseFailure, Row
from slmops.tasks.open_answer import FreeText
from slmops.tasks.references import references

if TYPE_CHECKING:
    from slmops.tasks.figures import Figure

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class QuestionAnswering(FreeText):
    """The task of answering in a few words, judged as in SQuAD.

    Source: Rajpurkar et al. (2016), "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section 6.1; the
    normalisation is that of its official script.
    """

    kind: ClassVar[str] = "qa"

    def judge(self, reference: Any, answer: Any | ParseFailure) -> Mapping[str, float]:
        """`exact_match` and `token_f1` against the reference that suits best, and `valid_format`."""
        if isinstance(answer, ParseFailure):
            return {"exact_match": 0.0, "token_f1": 0.0, "valid_format": 0.0}
        wanted, given = references(reference), str(answer)
        return {
            "exact_match": float(any(normalised(text) == normalised(given) for text in wanted)),
            "token_f1": max(token_f1(text, given) for text in wanted),
            "valid_format": 1.0,
        }

    def figures(self) -> tuple[Figure, ...]:
        """`exact_match`, `token_f1` and `valid_format`."""
        from slmops.tasks.figures import share

        return share("exact_match", compared=True), share("token_f1", compared=True), share("valid_format")

    def floor(self, train: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """The most frequent answer of the training rows."""
        from slmops.tasks.floor import most_frequent

        return most_frequent([self.write(row["output"]) for row in train], normalised) * len(texts)


def question(given: Any) -> str | ParseFailure:
    """The text of an input `{"question", "context"}`, the context being optional; a text stays as it is."""
    if isinstance(given, str):
        return given
    known = isinstance(given, Mapping) and "question" in given and given.keys() <= {"question", "context"}
    if not known or not all(isinstance(value, str) and value.strip() for value in given.values()):
        return ParseFailure('it must be a text or {"question": text, "context": text}, the context being optional')
    asked = str(given["question"]).strip()
    return f"Context: {given['context'].strip()}\nQuestion: {asked}" if "context" in given else asked


def question_of(text: str) -> str:
    """The question in a text of `question` that has a context; any other text as it is."""
    return text.rpartition("\nQuestion: ")[2] if text.startswith("Context: ") else text


def normalised(answer: str) -> str:
    """Lower case, without punctuation, articles and needless spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def token_f1(reference: str, answer: str) -> float:
    """F1 of the words of two normalised answers; where one has none, whether both have none."""
    wanted, given = normalised(reference).split(), normalised(answer).split()
    if not wanted or not given:
        return float(wanted == given)
    return 2 * (Counter(wanted) & Counter(given)).total() / (len(wanted) + len(given))
