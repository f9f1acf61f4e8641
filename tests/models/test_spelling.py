from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.models.spelling import Spelling, spelling
from slmops.models.tokenizer import Tokenizer
from slmops.models.vocabulary import trimmed
from tests.tokenizer_kinds import KINDS, TEXTS, tokenizer

kinds = pytest.mark.parametrize("kind", KINDS)


@cache
def cut(kind: str) -> tuple[Tokenizer, Spelling]:
    """The tokenizer cut to what the first text needs."""
    whole = tokenizer(kind)
    small, _ = trimmed(whole, set(whole.encode(TEXTS[0])), extra=0)
    found = spelling(whole, small)
    assert found
    return small, found


@kinds
@given(text=st.text(max_size=60) | st.sampled_from(TEXTS))
def test_tokens_spelled_one_by_one_are_the_same_text(kind, text):
    whole, (small, told) = tokenizer(kind), cut(kind)
    ids = whole.encode(text)
    assert small.backend.decode(told.of(ids)) == whole.backend.decode(ids)
    if not told.cuts(ids):
        assert told.of(ids) == small.encode(text)
        assert [told.kept[id] for id in small.encode(text)] == ids


@kinds
def test_what_is_left_out_is_told_and_begins_with_a_piece(kind):
    whole, (_, told) = tokenizer(kind), cut(kind)
    assert not told.cuts(whole.encode(TEXTS[0]))
    ids = whole.encode(TEXTS[3])
    assert told.cuts(ids)
    assert [told.first(id) for id in ids] == [told.pieces[id][0] for id in ids]
    assert told.first(whole.size) is None


def test_of_the_same_tokens_or_of_others_there_is_none():
    assert spelling(tokenizer("bytes"), tokenizer("bytes")) is None
    assert spelling(tokenizer("bytes"), tokenizer("gemma")) is None
