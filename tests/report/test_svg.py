"""Scales hit their ends, ticks are round and within, names do not lie on each other."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from slmops.report.svg import Drawing, Scale, spread

positive = st.floats(1e-3, 1e9)


@given(low=positive, ratio=st.floats(1.01, 1e6), log=st.booleans(), most=st.integers(2, 9))
def test_a_scale_hits_its_ends_and_its_ticks_lie_between(low, ratio, log, most):
    scale = Scale(low, low * ratio, 10, 210, log)
    assert abs(scale(low) - 10) < 1e-6
    assert abs(scale(low * ratio) - 210) < 1e-6
    ticks = scale.ticks(most)
    assert ticks == sorted(ticks)
    assert len(ticks) <= most + 1
    assert all(9.99 <= scale(tick) <= 210.01 for tick in ticks)


def test_ticks_are_round():
    assert Scale(0, 1, 0, 100).ticks(5) == [0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
    assert Scale(30, 1500, 0, 100, True).ticks(6) == [50, 100, 200, 500, 1000]


def test_a_scale_of_one_value_does_not_divide_by_zero():
    assert Scale(3, 3, 0, 100)(3) == 0
    assert Scale(3, 3, 0, 100).ticks(5)


@given(st.lists(st.floats(0, 300), max_size=12))
def test_spread_names_keep_their_distance_where_there_is_room(wanted):
    places = sorted(spread(wanted, 20, 0, 300))
    assert all(after - before >= 20 - 1e-9 for before, after in pairwise(places))


@given(st.text())
def test_any_text_makes_a_drawing_that_parses(text):
    drawing = Drawing(100, 50)
    drawing.text(1, 2, text, "name")
    root = ElementTree.fromstring(drawing.svg(text))  # noqa: S314 - our own
    assert root.get("role") == "img"
