"""Labelled rows parted into training and validation."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


def split(
    rows: Sequence[T], share: float, seed: int, label: Callable[[T], Hashable] | None = None
) -> tuple[list[T], list[T]]:
    """Training and validation rows, both in the order of `rows`.

    Args:
        rows: the labelled rows.
        share: of the rows that go to validation, in (0, 1).
        seed: the same rows and seed give the same parts.
        label: the class of a row; each class is parted in proportion, and one of two rows or more is in both parts.
            None takes all rows for one class.
    """
    rng = random.Random(f"split:{seed}")  # noqa: S311
    classes: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        classes[label(row) if label else None].append(index)
    held: set[int] = set()
    for members, count in zip(classes.values(), _counts([len(m) for m in classes.values()], share), strict=True):
        held.update(rng.sample(members, count))
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [row for index, row in enumerate(rows) if index in held],
    )


def _counts(sizes: Sequence[int], share: float) -> list[int]:
    """Validation rows of each class: the rounded total is dealt out by largest remainder.

    A class of one row gives none, any other at least one and not all, even where that moves the total.
    """
    wanted = round(sum(sizes) * share)
    counts = [min(max(int(size * share), 1), size - 1) for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: int(sizes[i] * share) - sizes[i] * share)
    for i in by_remainder:
        if sum(counts) < wanted and counts[i] < sizes[i] - 1 and counts[i] <= sizes[i] * share:
            counts[i] += 1
    return counts


def split_groups(
    rows: Sequence[T],
    share: float,
    seed: int,
    group: Callable[[T], Hashable],
    label: Callable[[T], Hashable] | None = None,
) -> tuple[list[T], list[T]]:
    """As `split`, but all rows of a group are in the same part, so that the share is met only nearly.

    Groups are looked at in an order drawn by chance, the large first, and go to validation where that brings the rows
    of their classes nearer to the share.
    """
    rng = random.Random(f"split:{seed}")  # noqa: S311
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[group(row)].append(index)
    order = list(groups.values())
    rng.shuffle(order)
    order.sort(key=len, reverse=True)
    classes = [label(row) if label else None for row in rows]
    missing = {name: count * share for name, count in Counter(classes).items()}
    held: set[int] = set()
    for members in order:
        counts = Counter(classes[index] for index in members)
        nearer = sum(missing[name] ** 2 - (missing[name] - count) ** 2 for name, count in counts.items())
        if nearer > 0:
            held.update(members)
            for name, count in counts.items():
                missing[name] -= count
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [row for index, row in enumerate(rows) if index in held],
    )
