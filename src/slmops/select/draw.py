"""Which rows come next."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from slmops.data.alike import Alike
from slmops.tasks import Row, asked_part


def shuffled(rows: Sequence[Row], seed: int, without: Collection[str] = ()) -> list[Row]:
    """The rows in an order of chance that the seed alone decides, those of the ids `without` left out."""
    order = random.Random(seed).sample(rows, len(rows))  # noqa: S311 - no secret
    return [row for row in order if row["id"] not in without]


def doubted(rows: Sequence[Row], doubts: Mapping[str, float]) -> list[Row]:
    """The rows that have a doubt, by their ids, the greatest first; of equals the first of `rows`."""
    return sorted((row for row in rows if row["id"] in doubts), key=lambda row: -doubts[row["id"]])


def unlike(rows: Sequence[Row], most: int, threshold: float | None, kind: str) -> list[Row]:
    """The first `most` rows of which no two are alike; others fill up where these are too few.

    Args:
        threshold: similarity, in (0, 1], from which two are alike; see `slmops.data.alike.Alike`. None: none are.
        kind: of the task, which knows what part of an input is asked.
    """
    if threshold is None:
        return list(rows[:most])
    alike = Alike([row["input"] for row in rows], [asked_part(kind, row["input"]) for row in rows])
    chosen: list[int] = []
    others: list[int] = []
    for place in range(len(rows)):
        if len(chosen) == most:
            break
        (others if alike.nearest([place], chosen, threshold) else chosen).append(place)
    return [rows[place] for place in [*chosen, *others][:most]]
