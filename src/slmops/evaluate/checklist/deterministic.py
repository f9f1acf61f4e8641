"""Is one question one answer?"""

from __future__ import annotations

from collections.abc import Sequence

from slmops.evaluate.checklist.line import Line, judged
from slmops.evaluate.checklist.served import Answer, Crashed, Refused
from slmops.evaluate.checklist.subject import Subject

NAME = "deterministic"
MIN_TOGETHER = 0.95
"""Share of texts with the same answer alone and in a batch: sums in another order may tip two equal tokens."""

_TEXTS = 16


def deterministic(subject: Subject) -> Line:
    """At temperature 0: each text alone, alone again, and all of them in one batch."""
    texts = subject.texts[:_TEXTS]
    with subject.progress.task("same answers again", 3 * len(texts), "requests") as bar:
        alone = []
        for _ in range(2):
            for text in texts:
                alone.append(subject.served.greedy([text]))
                bar.advance()
        together = subject.served.greedy(texts)
        bar.advance(len(texts))
    first, second = (_texts(outcome) for outcome in (alone[: len(texts)], alone[len(texts) :]))
    batch = _texts([[answer] for answer in together]) if isinstance(together, list) else [None for _ in texts]
    again = sum(a == b and a is not None for a, b in zip(first, second, strict=True)) / len(texts)
    with_others = sum(a == b and a is not None for a, b in zip(first, batch, strict=True)) / len(texts)
    changed = [text for text, *three in zip(texts, first, second, batch, strict=True) if len(set(three)) > 1]
    return Line(
        NAME,
        judged(again == 1 and with_others >= MIN_TOGETHER),
        f"{again:.0%} again, {with_others:.0%} in a batch",
        f"100%, at least {MIN_TOGETHER:.0%}",
        f"differs: {changed[0]!r}" if changed else f"{len(texts)} texts at temperature 0",
        {"texts": len(texts), "same_again": again, "same_in_a_batch": with_others},
    )


def _texts(replies: Sequence[list[Answer] | Refused | Crashed]) -> list[str | None]:
    """What was written in reply to each text, or None where nothing was."""
    return [reply[0].text if isinstance(reply, list) else None for reply in replies]
