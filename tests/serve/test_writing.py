"""What is sent is what was written, whole, up to the first stop string."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slmops.serve.writing import Writing

TEXTS = st.text(st.sampled_from("ab é🙂\n"), max_size=30)
STOPS = st.lists(st.text(st.sampled_from("ab é🙂"), min_size=1, max_size=3), max_size=3)


def sent(tokenizer, text: str, stops: list[str]) -> tuple[list[str], bool]:
    writing = Writing(tokenizer.stream(), stops)
    pieces = []
    for token in tokenizer.encode(text):
        pieces.append(writing.feed(token))
        if writing.stopped:
            break
    return [*pieces, writing.end()], writing.stopped


@given(text=TEXTS, stops=STOPS)
def test_all_up_to_the_first_stop_string_is_sent(tiny_tokenizer, text, stops):
    pieces, stopped = sent(tiny_tokenizer, text, stops)
    places = [text.find(stop) for stop in stops if stop in text]
    assert stopped == bool(places)
    # A token may bring several at once; of those the one that stands first counts.
    assert "".join(pieces) in ([text[:place] for place in places] or [text])
    assert not any(stop in "".join(pieces) for stop in stops)


@given(text=TEXTS)
def test_no_piece_ends_within_a_character(tiny_tokenizer, text):
    pieces, _ = sent(tiny_tokenizer, text, [])
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == text


def test_what_may_be_a_stop_string_waits(tiny_tokenizer):
    writing = Writing(tiny_tokenizer.stream(), ["END"])
    for letter in "abEN":
        (token,) = tiny_tokenizer.encode(letter)
        piece = writing.feed(token)
    assert piece == ""
    assert writing.end() == "EN"
