"""What is taken out comes back exactly, and no part of it is left."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.privacy.placeholders import written
from slmops.privacy.redaction import Redactor, redactor
from slmops.privacy.spans import Span
from slmops.recipe.privacy import PrivacySettings
from tests.privacy.canaries import CANARIES, CLEAN, FOUND

EVERYTHING = redactor(PrivacySettings(patterns={"customer": r"C-\d+", "odd": r"Q[\s\S]?"}))

pieces = st.one_of(
    st.sampled_from([*CANARIES.values(), *(around.format(value) for _, around, value in FOUND), *CLEAN]),
    st.sampled_from(
        ["C-12", "C-1", 'Q"', "Q\\", "Q\n", "QQ", "[EMAIL_1]", "[email_2]", "(EMAIL 1)", "EMAIL_3", "<ODD_1>"]
    ),
    st.sampled_from(["[", "]", "\\", "(", "{", "\\[ODD\\_1\\]", "[CUSTOMER_1", "_1]", " ", "\n", ", ", "\\n"]),
    st.text(max_size=12),
)
texts = st.lists(pieces, max_size=8).map("".join)
several = st.lists(texts, min_size=1, max_size=3)


def stays(text: str, values) -> list[str]:
    """What of a redacted text is no placeholder of ours."""
    names = "|".join(re.escape(written(name)) for name in values)
    return re.split(names, text) if names else [text]


@given(several)
def test_what_comes_back_is_what_there_was(given_texts):
    redaction = EVERYTHING.redact(given_texts)
    for text, redacted in zip(given_texts, redaction.texts, strict=True):
        assert redaction.restore(redacted, escape=False) == (text, ())


def json_like(text: str) -> bool:
    return "{" in text or "[" in text


@given(texts.filter(lambda text: not json_like(text)))
def test_text_without_json_comes_back_to_the_letter(text):
    redaction = EVERYTHING.redact([text])
    assert redaction.restore(redaction.texts[0]).text == text


@given(several)
def test_no_value_is_left_anywhere(given_texts):
    redaction = EVERYTHING.redact(given_texts)
    for redacted in redaction.texts:
        for part in stays(redacted, redaction.values):
            assert not [value for value in redaction.values.values() if value in part]


@given(several)
def test_one_value_has_one_placeholder_and_one_placeholder_one_value(given_texts):
    redaction = EVERYTHING.redact(given_texts)
    assert len(set(redaction.values.values())) == len(redaction.values)
    names = [name for text in given_texts for name in re.findall(r"\[([A-Z_]+)_(\d+)\]", text)]
    assert not {(kind.lower(), int(number)) for kind, number in names} & redaction.values.keys()


@given(texts)
def test_what_is_redacted_already_has_nothing_more_to_find_of_what_was_found(text):
    redaction = EVERYTHING.redact([text])
    again = EVERYTHING.redact(redaction.texts)
    assert not set(again.values.values()) & set(redaction.values.values())


def test_a_value_is_taken_out_where_nothing_says_what_it_is():
    redaction = EVERYTHING.redact(["password: hunter2", "she typed hunter2 twice, hunter2hunter2"])
    assert redaction.texts == ("password: [SECRET_1]", "she typed [SECRET_1] twice, [SECRET_1][SECRET_1]")


def test_the_longest_names_it_and_nothing_of_the_others_stays():
    found = {"abcdef": [Span(0, 4, "short"), Span(1, 6, "long")]}
    redaction = Redactor([lambda text: iter(found[text])], ["short", "long"]).redact(["abcdef"])
    assert redaction.values == {("long", 1): "abcdef"}


REDACTION = EVERYTHING.redact(["mail a@x.example or b@x.example about [EMAIL_1] and C-77"])


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("[EMAIL_2], [EMAIL_3]", "a@x.example, b@x.example"),
        ("[email_2] and [Email_3]", "a@x.example and b@x.example"),
        ("(EMAIL_2) <EMAIL_3> {EMAIL_2}", "a@x.example b@x.example a@x.example"),
        ("EMAIL_2 wrote", "a@x.example wrote"),
        (r"\[EMAIL\_2\]", "a@x.example"),
        ("[EMAIL 2] [ EMAIL-3 ]", "a@x.example b@x.example"),
        ("**[EMAIL_2]**", "**a@x.example**"),
        ("[EMAIL_1] is his own", "[EMAIL_1] is his own"),
        ("[CUSTOMER_1]", "C-77"),
        ("MYEMAIL_2 and EMAIL_22x", "MYEMAIL_2 and EMAIL_22x"),
    ],
)
def test_a_placeholder_that_was_changed_a_little_is_read(answer, told):
    restored = REDACTION.restore(answer)
    assert restored == (told, ())


@pytest.mark.parametrize("answer", ["[EMAIL_9]", "[email_9]", "x EMAIL_4 y", "[PHONE_1]", "<IBAN_1>"])
def test_an_invented_one_stays_and_is_told(answer):
    restored = REDACTION.restore(f"{answer} or [EMAIL_2]")
    assert restored.text == f"{answer} or a@x.example"
    assert len(restored.invented) == 1


@pytest.mark.parametrize("answer", ["call us (phone 2)", "[1] and [note_1]", "card 4", "GPT_4 says [see 2]"])
def test_what_is_no_placeholder_is_not_taken_for_an_invented_one(answer):
    assert REDACTION.restore(answer) == (answer, ())


def test_in_json_a_value_is_escaped_and_beside_it_not():
    value = 'Q"'
    redaction = EVERYTHING.redact([f"say {value}"])
    assert json.loads(redaction.restore('{"said": "[ODD_1]", "n": [1, "<ODD_1>"]}').text) == {
        "said": value,
        "n": [1, value],
    }
    fenced = redaction.restore('He said [ODD_1]:\n```json\n{"said": "[ODD_1]"}\n```').text
    assert fenced == 'He said Q":\n```json\n{"said": "Q\\""}\n```'


def test_a_cut_off_answer_that_ends_in_a_placeholder_is_known():
    assert REDACTION.ends_within("write to [EMA")
    assert REDACTION.ends_within("write to [EMAIL_2")
    assert not REDACTION.ends_within("write to [EMAIL_2]")
    assert not REDACTION.ends_within("write to [")


def test_plain_data_keeps_its_form():
    given_data = {"id": "a@x.example", "n": 3, "texts": ["a@x.example", None, {"b": "b@x.example"}]}
    assert EVERYTHING.redact_plain(given_data) == {
        "id": "[EMAIL_1]",
        "n": 3,
        "texts": ["[EMAIL_1]", None, {"b": "[EMAIL_2]"}],
    }


def test_the_values_are_not_shown_by_accident():
    assert "a@x.example" not in repr(REDACTION)


@pytest.mark.parametrize("text", ["1 " * 2_000, "x@" * 20_000, "[EMAIL_" * 10_000, "12345-" * 1_000, '{"a":[' * 2_000])
def test_a_long_text_takes_no_longer_than_its_length(text):
    """Hangs where a pattern backtracks: the time limit of tests ends it."""
    redaction = EVERYTHING.redact([text + CANARIES["email"]])
    assert redaction.restore(redaction.texts[0]).text == text + CANARIES["email"]
