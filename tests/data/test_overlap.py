"""Held-out words that stand in other texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slmops.data.overlap import Overlap

HELD = "the quick brown fox jumps over the lazy dog near a river"


def share(text: str, held: str = HELD, run: int = 8) -> float:
    found = Overlap([held], run).most(text)
    return found.similarity if found else 0.0


def test_the_share_of_the_words_in_common_runs() -> None:
    assert share(f"I read that {HELD.upper()}, and laughed") == 1.0
    words = HELD.split()
    assert share(" ".join(["once", *words[:9], "away"])) == 9 / 12
    assert share(" ".join(["once", *words[:8], "away"])) == 8 / 12
    assert share(" ".join(["once", *words[:7], "away"])) == 0.0, "seven words are no run"
    # Two runs count together, and a word in both counts once.
    assert share(" ".join([*words[:8], "and", *words[4:]])) == 1.0


def test_a_short_text_has_no_run() -> None:
    assert Overlap(["where is my card"], 8).most("where is my card") is None


def test_the_text_with_the_greatest_share_is_told() -> None:
    words = HELD.split()
    found = Overlap([" ".join(words[:8] + ["x"] * 8), HELD], 8).most(HELD)
    assert found is not None
    assert (found.other, found.similarity) == (1, 1.0)


def test_a_phrase_of_the_trade_gives_nothing_away() -> None:
    phrase = "thank you very much for your help and have a nice day"
    assert Overlap([f"{phrase} {i}" for i in range(10)], 8).most(phrase) is not None
    assert Overlap([f"{phrase} {i}" for i in range(11)], 8).most(phrase) is None


WORDS = st.lists(st.sampled_from("abcd"), max_size=14)


@given(WORDS, WORDS, st.integers(3, 5))
def test_the_share_is_that_of_words_in_any_common_run(held: list[str], text: list[str], run: int) -> None:
    def stands(words: list[str]) -> bool:
        return any(text[at : at + run] == words for at in range(len(text) - run + 1))

    covered = {at + i for at in range(len(held) - run + 1) if stands(held[at : at + run]) for i in range(run)}
    wanted = len(covered) / len(held) if held else 0.0
    assert share(" ".join(text), " ".join(held), run) == wanted
