"""What a teacher thinks aloud before it answers, and whether that is a part of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Reasoning = Literal["strip", "keep"]

OPEN, CLOSE = "<think>", "</think>"

UNFINISHED = "thinking"
"""As `finish` of a record: the reply ends inside its thinking."""


def spoken(record: Mapping[str, Any], reasoning: Reasoning) -> dict[str, Any]:
    """The record of a reply with the answer as its text, without what was thought or, with `keep`, behind it.

    What is thought stands at the beginning in `<think>` marks, of which a chat template may have written the first, or
    in `reasoning`, where the endpoint keeps it apart.
    """
    thought, answer = _parted(record)
    if answer is None:
        return {**record, "text": "", "finish": UNFINISHED}
    if thought is None or reasoning == "strip":
        return {**record, "text": answer}
    return {**record, "text": f"{OPEN}\n{thought.strip()}\n{CLOSE}\n\n{answer.strip()}"}


def _parted(record: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """What was thought, None where nothing was; and the answer, None where it was not come to."""
    text, apart = record["text"], record.get("reasoning")
    if apart:
        cut_off = record["finish"] == "length" and not text.strip()
        return apart, None if cut_off else text
    before, closed, behind = text.partition(CLOSE)
    opened, thought = before.lstrip().startswith(OPEN), before.lstrip().removeprefix(OPEN)
    if closed and OPEN not in thought:
        return thought, behind
    return (thought, None) if opened else (None, text)
