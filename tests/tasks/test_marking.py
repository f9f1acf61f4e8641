"""Marks on a text say the same as the answer they were made of."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from slmops.errors import BadInput
from slmops.tasks.marking import Marking, Span

TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {
        "intent": {"enum": ["refund", "other"]},
        "name": TEXT,
        "order": TEXT,
        "amount": {"type": "number"},
        "urgent": {"type": "boolean"},
        "city": {"type": ["string", "null"]},
    },
    "required": ["intent", "city"],
    "additionalProperties": False,
}
MARKING = Marking.of(SCHEMA)


def again(text: str, answer: dict[str, object]) -> dict[str, object]:
    marks = MARKING.mark(text, answer)
    assert not marks.lost
    return MARKING.read(text, marks.spans, marks.options)


def test_labels_are_numbered_group_after_group():
    assert MARKING.copied == {"name": False, "order": False, "amount": True, "city": False}
    assert MARKING.options == {"intent": ("refund", "other"), "urgent": (None, True, False)}
    assert MARKING.nulls == {"city"}
    assert MARKING.sizes == (9, 2, 3)
    assert [MARKING.begin(name) for name in MARKING.copied] == [1, 3, 5, 7]
    assert [MARKING.first_option(name) for name in MARKING.options] == [9, 11]


WORDS = st.text(alphabet="abcé 🙂-", min_size=1, max_size=8).map(str.strip).filter(bool)


@given(
    st.fixed_dictionaries(
        {"intent": st.sampled_from(["refund", "other"])},
        optional={"name": WORDS, "order": WORDS, "city": WORDS, "urgent": st.booleans()},
    ),
    WORDS,
)
def test_an_answer_whose_values_stand_apart_in_the_text_comes_back(answer, filling):
    named = [f"{name.upper()}: {answer[name]}; {filling}." for name in MARKING.copied if name in answer]
    wanted = {"city": None} | answer
    marks = MARKING.mark(" ".join(named), answer)
    # A short value may stand inside a longer one alone, which has the place.
    if not marks.lost:
        assert MARKING.read(" ".join(named), marks.spans, marks.options) == wanted


def test_a_number_is_found_however_it_is_written():
    text = "I paid 1,250.50 for 3 of them"
    assert again(text, {"intent": "refund", "amount": 1250.5}) == {"intent": "refund", "amount": 1250.5, "city": None}
    assert again(text, {"intent": "refund", "amount": 3})["amount"] == 3


def test_whole_words_come_before_parts_and_longer_values_before_shorter():
    marks = MARKING.mark("Annabel, Anna of Annaberg", {"intent": "other", "name": "Anna", "city": "Annaberg"})
    assert marks.spans == (Span("name", 9, 13), Span("city", 17, 25))
    assert MARKING.mark("New York", {"intent": "other", "name": "York", "city": "New York"}).lost == ("name",)


def test_a_value_that_stands_twice_is_marked_twice():
    spans = MARKING.mark("Zoë? Zoë!", {"intent": "other", "name": "Zoë"}).spans
    assert [(span.start, span.end) for span in spans] == [(0, 3), (5, 8)]


@pytest.mark.parametrize(
    "answer", [{"intent": "other", "name": "Bo"}, {"intent": "unknown"}, {"intent": "other", "amount": 2}]
)
def test_what_the_text_or_the_list_does_not_hold_is_lost(answer):
    assert MARKING.mark("nothing of it, 20 of them", answer).lost


def test_a_property_that_is_neither_text_nor_number_nor_closed_is_refused():
    with pytest.raises(BadInput, match="property `x` is of type number, string") as refused:
        Marking.of({"properties": {"x": {"type": ["string", "number"]}}})
    assert "student.head: language" in str(refused.value.hint)
