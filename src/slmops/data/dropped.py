"""Rows that are not learned from, each with the reason: what is dropped is kept beside what stays."""

from __future__ import annotations

from slmops.tasks import Row

EXACT_DUPLICATE = "exact duplicate"
NEAR_DUPLICATE = "near duplicate"
CONTAMINATED = "contaminated"

TRAIN, POOL = "train", "pool"
"""The sides that are learned from: a row may repeat theirs, and gives nothing away."""


def dropped_row(
    row: Row,
    side: str,
    reason: str,
    detail: str,
    *,
    stage: str = "data",
    like: str | None = None,
    similarity: float | None = None,
    text: str | None = None,
) -> Row:
    """A row as `dropped.jsonl` has it.

    Args:
        side: which rows it was one of.
        reason: one of a few, by which rows are counted.
        detail: what exactly is wrong with it, in words.
        stage: that dropped it.
        like: the id of the row that it is too much like.
        similarity: with that row, in 0..1.
        text: what the teacher answered, where it had.
    """
    told = {"id": row["id"], "side": side, "stage": stage, "reason": reason, "detail": detail}
    told |= {"like": like, "similarity": None if similarity is None else round(similarity, 4), "input": row["input"]}
    return told if text is None else {**told, "text": text}
