"""Does a hypothesis follow from a premise? One label out of a closed set, mostly three."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from slmops.tasks.base import ParseFailure
from slmops.tasks.classification import Classification


@dataclass(frozen=True)
class Nli(Classification):
    """Natural language inference: a classification of two texts, which stand in one input."""

    kind: ClassVar[str] = "nli"


def premise_and_hypothesis(given: Any) -> str | ParseFailure:
    """The text of an input `{"premise", "hypothesis"}`; a text stays as it is."""
    if isinstance(given, str):
        return given
    names = ("premise", "hypothesis")
    if not isinstance(given, Mapping) or given.keys() != set(names) or not _texts(given.values()):
        return ParseFailure('it must be a text or {"premise": text, "hypothesis": text}')
    return "\n".join(f"{name.capitalize()}: {given[name].strip()}" for name in names)


def hypothesis_of(text: str) -> str:
    """The hypothesis in a text of `premise_and_hypothesis`; any other text as it is."""
    return text.rpartition("\nHypothesis: ")[2] if text.startswith("Premise: ") else text


def _texts(values: Any) -> bool:
    return all(isinstance(value, str) and value.strip() for value in values)
