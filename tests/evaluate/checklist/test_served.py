"""A bundle in a process of its own."""

from __future__ import annotations

import pytest

from slmops.engines import ENGINES
from slmops.errors import SlmopsError
from slmops.evaluate.checklist.served import Answer, Crashed, Refused, Served
from slmops.evaluate.checklist.texts import hostile


def test_answers_are_those_of_the_bundle(healthy, tiny):
    with Served(healthy, threads=1) as served:
        assert served.info()["context_tokens"] == 128
        for text, answer in tiny.pairs.items():
            outcome = served.predict(text)
            assert isinstance(outcome, Answer)
            assert outcome.text == answer
        assert 30_000_000 < served.rss_bytes < 400_000_000
        together = served.greedy(list(tiny.pairs))
    assert [answer.text for answer in together] == list(tiny.pairs.values())
    for text, answer in zip(tiny.pairs, together, strict=True):
        assert answer.prompt_tokens == len(tiny.prompt(text))
        assert 0 < answer.first_s < answer.total_s
        assert 0.9 < answer.confidence <= 1, "it knows its answers by heart"


def test_bad_input_is_refused_and_the_process_lives(healthy, tiny):
    with Served(healthy, threads=1) as served:
        assert isinstance(served.predict("word " * 500), Refused)
        assert isinstance(served.predict(hostile([])["half a surrogate pair"]), Refused)
        assert isinstance(served.predict(next(iter(tiny.pairs))), Answer)


def test_a_process_that_dies_starts_again(faulty, tiny):
    with Served(faulty("dying"), threads=1) as served:
        assert served.predict("x" * 100) == Crashed("the process died of SIGSEGV")
        assert isinstance(served.predict(next(iter(tiny.pairs))), Answer)


def test_a_bundle_that_does_not_load_says_why(make_bundle, monkeypatch):
    monkeypatch.setitem(ENGINES, "abacus", "known:here alone")
    folder = make_bundle("lost", engine="abacus")
    with Served(folder, threads=1) as served, pytest.raises(SlmopsError, match="no engine 'abacus'"):
        served.info()


def test_a_process_that_ends_tells_its_last_words(tmp_path):
    with Served(tmp_path, threads=1) as served, pytest.raises(SlmopsError, match=r"exit code 1: .*is not a bundle"):
        served.info()
