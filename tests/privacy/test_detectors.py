"""What is found, and what is left alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import luhn
from stdnum.cn import ric

from slmops.privacy.national import NUMBERS
from slmops.privacy.numbers import cards
from slmops.privacy.redaction import redactor
from slmops.privacy.spans import Span, united
from slmops.recipe.privacy import COUNTRIES, KINDS, PrivacySettings
from tests.privacy.canaries import CANARIES, CLEAN, FOUND

EVERYTHING = redactor(PrivacySettings())

UNNAMED = "110704198001011234"
"""A Chinese number of a county that python-stdnum has no name for, and stumbles over."""


@pytest.mark.parametrize(("kind", "around", "value"), [*FOUND, *((k, "it is {} so", v) for k, v in CANARIES.items())])
def test_it_is_found_whole_and_alone(kind, around, value):
    text = around.format(value)
    redaction = EVERYTHING.redact([text])
    assert redaction.values == {(kind, 1): value}, redaction.texts
    assert redaction.texts == (around.format(f"[{kind.upper()}_1]"),)


@pytest.mark.parametrize("text", CLEAN)
def test_it_is_left_alone(text):
    assert EVERYTHING.redact([text]).texts == (text,)


@pytest.mark.parametrize(("kind", "value"), CANARIES.items())
def test_a_line_end_in_json_does_not_hide_it(kind, value):
    assert value not in EVERYTHING.redact([rf'{{"text":"call\n{value}\tnow"}}']).texts[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_left_out_stays(kind):
    only_others = redactor(PrivacySettings(redact=[other for other in KINDS if other != kind]))
    assert kind not in only_others.redact(list(CANARIES.values())).counts
    alone = redactor(PrivacySettings(redact=[kind]))
    assert set(alone.redact(list(CANARIES.values())).counts) == {kind}


def test_every_country_has_numbers():
    assert set(NUMBERS) == set(COUNTRIES)
    assert not redactor(PrivacySettings(national_ids=["de"])).redact(["I am 536-90-4399"]).values


@given(st.text(alphabet="0123456789", min_size=4, max_size=20))
def test_no_check_fails_at_a_number(digits):
    for text in (digits, f"ssn {digits}", f"{digits}X", " ".join(digits)):
        EVERYTHING.redact([text])


def test_a_number_that_a_check_fails_at_counts():
    with pytest.raises(KeyError):
        ric.is_valid(UNNAMED)
    assert EVERYTHING.redact([UNNAMED]).counts == {"national_id": 1}


def test_regions_say_how_national_numbers_are_written():
    french = "ou 01 42 68 53 00 demain"
    assert redactor(PrivacySettings(phone_regions=["FR"])).redact([french]).counts == {"phone": 1}
    assert not redactor(PrivacySettings(phone_regions=[])).redact([french]).values
    assert redactor(PrivacySettings(phone_regions=[])).redact(["+33 1 42 68 53 00"]).counts == {"phone": 1}


def test_nothing_to_find_is_no_redactor():
    assert redactor(PrivacySettings(redact=[])) is None


@given(st.text(alphabet="0123456789", min_size=14, max_size=14))
def test_a_card_is_one_by_luhn_alone(digits):
    whole = f"4{digits}"
    whole += luhn.calc_check_digit(whole)
    assert list(cards(f"a {whole}.")) == [Span(2, 18, "card")]
    assert list(cards(f"a {' '.join(whole[i : i + 4] for i in range(0, 16, 4))}.")) == [Span(2, 21, "card")]
    assert not list(cards(whole[:-1] + str((int(whole[-1]) + 1) % 10)))


def test_a_version_is_no_address_wherever_its_word_stands():
    assert not EVERYTHING.redact(["firmware: 10.2.3.4"]).values
    assert EVERYTHING.redact(["firmware from 10.2.3.4"]).counts == {"ip": 1}


spans = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.sampled_from("abc")), max_size=8)


@given(spans)
def test_united_spans_cover_the_same_and_do_not_overlap(given_spans):
    found = [Span(start, start + length, kind) for start, length, kind in given_spans]
    made = united(found)
    assert {i for s in found for i in range(s.start, s.end)} == {i for s in made for i in range(s.start, s.end)}
    assert all(a.end <= b.start for a, b in pairwise(made))
    for one in made:
        inside = [s for s in found if one.start <= s.start < one.end]
        assert one.kind in {s.kind for s in inside if s.end - s.start == max(t.end - t.start for t in inside)}
