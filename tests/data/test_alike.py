"""Which texts are alike, against every pair compared."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.data.alike import SHINGLE, Alike, folded

VOCABULARY = ["ab", "abc", "card", "carb", "pin", "my", "1", "2"]
WORDS = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=6).map(" ".join)
TEXTS = st.lists(WORDS, min_size=1, max_size=24)
THRESHOLDS = st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 1.0])


def jaccard(one: str, other: str) -> float:
    """By the letter of its definition."""

    def shingles(text: str) -> set[str]:
        text = folded(text)
        return {text[at : at + SHINGLE] for at in range(max(1, len(text) - SHINGLE + 1))}

    def numbers(text: str) -> list[str]:
        return "".join(c if c.isdigit() else " " for c in folded(text)).split()

    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b) if numbers(one) == numbers(other) else 0.0


@given(TEXTS)
def test_similarity_is_the_share_of_common_shingles(texts: list[str]) -> None:
    alike = Alike(texts)
    for one in range(len(texts)):
        for other in range(len(texts)):
            assert alike.similarity(one, other) == pytest.approx(jaccard(texts[one], texts[other]))


@given(TEXTS, TEXTS, THRESHOLDS)
def test_no_pair_is_missed_and_none_is_made_up(texts: list[str], others: list[str], threshold: float) -> None:
    found = Alike([*texts, *others]).nearest(range(len(texts)), range(len(texts), len(texts) + len(others)), threshold)
    for place, text in enumerate(texts):
        best = max(jaccard(text, other) for other in others)
        if best >= threshold:
            assert found[place].similarity == pytest.approx(best)
            assert jaccard(text, others[found[place].other - len(texts)]) == pytest.approx(best)
        else:
            assert place not in found


def survivors(texts: list[str], threshold: float) -> list[str]:
    found = Alike(texts).twins(range(len(texts)), threshold)
    assert all(match.other not in found for match in found.values()), "a twin is one of what stays"
    return [text for place, text in enumerate(texts) if place not in found]


@given(TEXTS, THRESHOLDS, st.randoms(use_true_random=False))
def test_of_twins_one_stays_whatever_the_order(texts: list[str], threshold: float, chance: random.Random) -> None:
    kept = survivors(texts, threshold)
    assert all(jaccard(a, b) < threshold for i, a in enumerate(kept) for b in kept[:i])
    lost = [text for text in texts if text not in kept]
    assert all(any(jaccard(text, other) >= threshold for other in kept) for text in lost)
    mixed = chance.sample(texts, len(texts))
    assert sorted(map(folded, survivors(mixed, threshold))) == sorted(map(folded, kept))
    assert survivors(kept, threshold) == kept, "what stays, stays"


def test_rows_of_several_chunks_are_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        f"the {word} of the house is {colour}"
        for word in ["door", "roof", "wall", "gate"]
        for colour in ["red", "blue"]
    ]
    texts += [text.upper() + "!" for text in texts]
    whole = Alike(texts).twins(range(len(texts)), 0.9)
    monkeypatch.setattr("slmops.data.alike._CHUNK", 3)
    monkeypatch.setattr("slmops.data.alike._PAIRS", 2)
    parts = Alike(texts)
    assert parts.twins(range(len(texts)), 0.9) == whole
    assert set(whole) == set(range(8, 16))
    assert set(parts.nearest(range(8), range(8, 16), 0.9)) == set(range(8))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Where is my card?", "  where is MY card ", True),
        ("I think that my new card is broken", "I think that my new card is broke.", True),
        ("“Where is my card”", "Where is my card", True),
        (
            "I have waited for order 4711 for two weeks, where is it?",
            "I have waited for order 4712 for two weeks, where is it?",
            False,
        ),
        ("2 + 3 = ?", "2 - 3 = ?", False),
        ("My card does not work", "My card works", False),
        ("?", "!", False),
        ("yes", "yes.", True),
    ],
)
def test_what_a_slip_of_the_pen_is_and_what_is_not(one: str, other: str, alike: bool) -> None:
    assert bool(Alike([one, other]).twins([0, 1], 0.9)) is alike


LONG = "Nobody has been there for years, since the bridge over the river fell and the path grew over with thorns."


def test_two_questions_on_one_context_are_two() -> None:
    context = f"Context: {'The house stands on a hill behind the old mill. ' * 2}{LONG}\nQuestion: "
    questions = ["Where does the house stand?", "Who has been there?", "where does the house stand"]
    texts = [context + question for question in questions]
    assert len(Alike(texts).twins(range(3), 0.8)) == 2, "by their whole texts they are one"
    found = Alike(texts, questions).twins(range(3), 0.8)
    assert set(found) in ({0}, {2})


def test_nothing_is_alike_to_nothing() -> None:
    assert Alike([]).twins([], 0.9) == {}
    assert Alike(["a text"]).nearest([0], [], 0.9) == {}
