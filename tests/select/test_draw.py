"""Which rows come next, and when it is enough."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slmops.select.curve import flat
from slmops.select.draw import doubted, shuffled, unlike

ids = st.lists(st.integers(0, 99), unique=True, max_size=30)


def rows(*texts: str) -> list[dict]:
    return [{"id": str(i), "input": text} for i, text in enumerate(texts)]


@given(ids, st.integers(0, 9), st.sets(st.integers(0, 99)))
def test_an_order_of_chance_is_that_of_its_seed_and_goes_on_where_it_was(found, seed, bought):
    every = [{"id": str(i), "input": ""} for i in found]
    order = shuffled(every, seed)
    assert sorted(order, key=lambda row: row["id"]) == sorted(every, key=lambda row: row["id"])
    without = {str(i) for i in bought}
    # What is left keeps its order, so two draws are one draw of both sizes.
    assert shuffled(every, seed, without) == [row for row in order if row["id"] not in without]


def test_the_greatest_doubt_comes_first_and_what_was_not_weighed_does_not_come():
    found = doubted(rows("a", "b", "c", "d"), {"0": 0.1, "2": 0.9, "3": 0.1})
    assert [row["input"] for row in found] == ["c", "a", "d"]


def test_rows_that_are_alike_do_not_come_together_while_there_are_others():
    texts = ("where is my order, please", "where is my order, please?", "cancel the blue lamp", "thanks a lot")
    assert [row["id"] for row in unlike(rows(*texts), 2, 0.5, "classification")] == ["0", "2"]
    assert [row["id"] for row in unlike(rows(*texts), 2, None, "classification")] == ["0", "1"]
    assert [row["id"] for row in unlike(rows(*texts), 4, 0.5, "classification")] == ["0", "2", "3", "1"]
    assert unlike([], 4, 0.5, "classification") == []


def test_a_curve_is_flat_when_the_last_rounds_together_gained_too_little():
    assert not flat([0.5], 2, 0.01)
    assert not flat([0.5, 0.5], 2, 0.01), "of two rounds only one has been"
    assert flat([0.5, 0.5, 0.51], 2, 0.01)
    assert not flat([0.5, 0.505, 0.52], 2, 0.01), "small gains add up"
    assert flat([0.5, 0.7, 0.6, 0.7], 2, 0.0)
