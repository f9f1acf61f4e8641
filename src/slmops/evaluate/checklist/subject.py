"""The bundle under examination, what it is asked, and what it has said so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slmops.bundle import Bundle
from slmops.data.formats import records
from slmops.data.read import read_rows
from slmops.errors import BadInput
from slmops.evaluate.checklist.served import Answer, Crashed, Outcome, Served
from slmops.evaluate.checklist.texts import OUT_OF_DOMAIN
from slmops.progress import Progress
from slmops.tasks import ParseFailure, Row

MOST_ROWS = 200
"""In-domain rows that are asked at most."""

TOGETHER = 16


@dataclass
class Subject:
    """A bundle and its process.

    Attributes:
        bundle: opened here for its manifest, task and tokenizer; its model runs in `served` alone.
        rows: in-domain queries, with `output` where answers are known; empty where there are none.
        progress: where long checks report to.
        formed, unformed: answers that have the task's form and that have not, by the check they were given to.
    """

    bundle: Bundle
    served: Served
    rows: Sequence[Row]
    progress: Progress
    formed: Counter[str] = field(default_factory=Counter)
    unformed: Counter[str] = field(default_factory=Counter)

    @property
    def texts(self) -> list[str]:
        """In-domain queries, or everyday sentences where none are given."""
        return [row["input"] for row in self.rows] or list(OUT_OF_DOMAIN)

    def predict(self, check: str, text: str) -> Outcome:
        """One request through the real door, counted for `check`."""
        outcome = self.served.predict(text)
        if isinstance(outcome, Answer):
            self.read(check, outcome.text)
        return outcome

    def greedy(self, check: str, texts: Sequence[str], title: str) -> list[Outcome]:
        """The most likely answer to each text, counted for `check`; one text that is refused hinders no other."""
        found: list[Outcome] = []
        with self.progress.task(title, len(texts), "requests") as bar:
            for begin in range(0, len(texts), TOGETHER):
                part = texts[begin : begin + TOGETHER]
                answers = self.served.greedy(part)
                found += answers if isinstance(answers, list) else [self._one(text) for text in part]
                bar.advance(len(part))
        for outcome in found:
            if isinstance(outcome, Answer):
                self.read(check, outcome.text)
        return found

    def _one(self, text: str) -> Outcome:
        answers = self.served.greedy([text])
        return answers[0] if isinstance(answers, list) else answers

    def read(self, check: str, text: str) -> Any | ParseFailure:
        """The answer in `text`, counted for `check`."""
        answer = self.bundle.task.parse(text)
        (self.unformed if isinstance(answer, ParseFailure) else self.formed)[check] += 1
        return answer


def crashes(outcomes: Sequence[Outcome]) -> list[str]:
    """How the process died, once for each time it did."""
    return [outcome.how for outcome in outcomes if isinstance(outcome, Crashed)]


def in_domain(bundle: Bundle, path: Path | None) -> list[Row]:
    """The first `MOST_ROWS` rows of a file; none without one, because a bundle carries no rows of anybody's data.

    Raises:
        BadInput: a row is broken, or its answer is none of the bundle's task.
    """
    if path is None:
        return []
    first = next(iter(records(path)), None)
    output = "output" if first and first[1].get("output") is not None else None
    rows = []
    for place, row in read_rows(path, "row", output=output):
        problem = bundle.task.check(row["output"]) if output else None
        if problem:
            raise BadInput(f"{place}: {problem}", hint="give rows of the bundle's task, or rows without `output`")
        rows.append(row)
        if len(rows) == MOST_ROWS:
            break
    return rows
