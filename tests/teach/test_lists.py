"""A teacher's list is found in whatever it wrote around it, and prose is no list."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.teach.lists import items_of

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('["a", "b"]', ["a", "b"]),
        ('Sure! Here are two:\n\n```json\n["a",\n "b"]\n```\nHope it helps.', ["a", "b"]),
        ('{"texts": ["a", "b"]}', ["a", "b"]),
        ('["a", "b", "c', ["a", "b"]),
        ('["a", "b",]', ["a", "b"]),
        ('[see below] [] [1]: ["a"]', [1]),
        ('[{"premise": "p", "hypothesis": "h"}, {"premise": "q"', [{"premise": "p", "hypothesis": "h"}]),
        ('[[{"role": "user", "content": "x"}], "y"]', [[{"role": "user", "content": "x"}], "y"]),
        ('"a"\n"b",\nand more', ["a", "b"]),
        ('{"question": "q1"}\n{"question": "q2"}', [{"question": "q1"}, {"question": "q2"}]),
        ("Here you are:\n1. first one\n2) second\n- third\n* fourth\n", ["first one", "second", "third", "fourth"]),
        ("I cannot help with that.", []),
        ("", []),
        ('[NaN, "a"]', []),
        ('["\\ud800", "a"]', []),
        ("[" * 5000, []),
        ("1984 was a good year.\n3.5 is a number", []),
    ],
)
def test_the_list_is_what_it_is(text, items):
    assert items_of(text) == items


@given(TEXTS, st.sampled_from(["{}", "Sure:\n{}", "```json\n{}\n```", '{{"texts": {}}}']), st.booleans())
def test_whatever_the_texts_are_they_come_back(texts, around, ascii_alone):
    assert items_of(around.format(json.dumps(texts, ensure_ascii=ascii_alone))) == texts


@given(TEXTS, st.data())
def test_where_it_is_cut_off_the_whole_texts_before_the_cut_are_there(texts, data):
    text = json.dumps(texts)
    cut = data.draw(st.integers(1, len(text) - 1))
    starts, at = [], 1
    for one in texts:
        at += len(json.dumps(one))
        starts.append(at)
        at += 2
    whole = sum(end <= cut for end in starts)
    if whole:
        assert items_of(text[:cut]) == texts[:whole]


@given(st.text())
def test_nothing_makes_it_fail(text):
    assert isinstance(items_of(text), list)
