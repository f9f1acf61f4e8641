"""What a split must keep, whatever the rows."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.data.split import split, split_groups

LABELLED = st.lists(st.sampled_from("abcde"), max_size=120).map(lambda labels: list(enumerate(labels)))
SHARE = st.floats(0.01, 0.99)
SEED = st.integers(0, 2**32)


def label(row: tuple[int, str]) -> str:
    return row[1]


@given(LABELLED, SHARE, SEED, st.booleans())
def test_both_parts_together_are_the_rows_in_their_order(
    rows: list[tuple[int, str]], share: float, seed: int, stratify: bool
) -> None:
    train, validation = split(rows, share, seed, label if stratify else None)
    assert sorted(train + validation) == rows
    assert train == sorted(train)
    assert validation == sorted(validation)
    assert split(rows, share, seed, label if stratify else None) == (train, validation)


@given(LABELLED, SHARE, SEED)
def test_each_class_is_in_both_parts_in_proportion(rows: list[tuple[int, str]], share: float, seed: int) -> None:
    train, validation = split(rows, share, seed, label)
    kept, held = Counter(map(label, train)), Counter(map(label, validation))
    for name, count in Counter(map(label, rows)).items():
        if count == 1:
            assert (kept[name], held[name]) == (1, 0)
        else:
            assert kept[name] >= 1
            assert held[name] >= 1
            assert abs(held[name] - count * share) <= 1


@given(st.integers(2, 500), SHARE, SEED)
def test_one_class_is_parted_to_the_row(count: int, share: float, seed: int) -> None:
    _, validation = split(range(count), share, seed)
    assert len(validation) == min(max(round(count * share), 1), count - 1)


@given(st.lists(st.integers(20, 60), min_size=1, max_size=12), st.floats(0.1, 0.9))
def test_the_total_is_the_share_when_classes_are_large(sizes: list[int], share: float) -> None:
    rows = [(i, str(name)) for name, size in enumerate(sizes) for i in range(size)]
    assert len(split(rows, share, 0, label)[1]) == round(len(rows) * share)


def test_another_seed_takes_other_rows() -> None:
    rows = range(100)
    assert len({tuple(split(rows, 0.2, seed)[1]) for seed in range(20)}) == 20


@pytest.mark.parametrize("rows", [[], [(0, "a")]])
def test_too_few_rows_leave_validation_empty(rows: list[tuple[int, str]]) -> None:
    assert split(rows, 0.5, 0, label) == (rows, [])


@given(LABELLED, st.floats(0.1, 0.5), SEED, st.integers(1, 30))
def test_a_group_is_never_parted(rows: list[tuple[int, str]], share: float, seed: int, groups: int) -> None:
    def group(row: tuple[int, str]) -> int:
        return row[0] % groups

    train, validation = split_groups(rows, share, seed, group, label)
    assert sorted(train + validation) == rows
    assert train == sorted(train)
    assert not set(map(group, train)) & set(map(group, validation))
    assert split_groups(rows, share, seed, group, label) == (train, validation)


def test_groups_meet_the_share_of_each_class_nearly() -> None:
    rows = [(i, "ab"[i // 5 % 4 == 0]) for i in range(400)]  # eighty groups of five
    train, validation = split_groups(rows, 0.2, 7, lambda row: row[0] // 5, label)
    assert Counter(map(label, validation)) == {"a": 60, "b": 20}
    assert len(train) == 320
