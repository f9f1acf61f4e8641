"""Which answers are not learned from."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.data.alike import Alike
from slmops.recipe.curating import Curate
from slmops.tasks import Classification, Generation, QuestionAnswering
from slmops.teach import curate
from slmops.teach.language import Languages
from tests.tiny_task import TASK

COLOURS = Classification(("red", "blue", "green"), None, 8)
FREE = Generation(None, 60)


@dataclass(frozen=True)
class Said:
    id: str
    text: str


def answers(*texts: str) -> list[Said]:
    return [Said(f"p{i}", text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("text", "task", "reason"),
    [
        ("", TASK, "no answer"),
        ("Well, I think", TASK, "unparseable"),
        ('{"intent":"none of these"}', TASK, "invalid"),
        ("purple", COLOURS, "invalid"),
        ("red", COLOURS, "no answer"),
    ],
)
def test_answers_without_form_are_counted_by_few_reasons(text: str, task: Any, reason: str) -> None:
    assert curate.unformed(text, task) == reason


def test_agreement_is_the_weight_behind_what_is_read_the_same() -> None:
    said = [{"p0": "red", "p1": "blue"}, {"p0": " Red", "p1": "red"}, {"p0": "blue"}]
    found = curate.agreements(answers("red", "red"), said, [1.0, 2.0, 1.0], COLOURS)
    assert found == pytest.approx([0.75, 0.5])
    dropped = curate.inconsistent(found, 0.75)
    assert {place: finding.detail for place, finding in dropped.items()} == {
        1: "50% of the teachers' weight stands behind it, less than 75%"
    }


def test_lengths_far_from_the_others_are_found() -> None:
    chance = random.Random(1)
    usual = ["x" * chance.randint(80, 160) for _ in range(100)]
    assert curate.odd_lengths(answers(*usual), 3.0) == {}
    assert set(curate.odd_lengths(answers(*usual, "x", "x" * 5_000), 3.0)) == {100, 101}
    assert curate.odd_lengths(answers(*["x" * 10] * 99, "x" * 5_000), 3.0) == {}, "without a spread nothing is far"
    assert curate.odd_lengths(answers("x", "x" * 10, "x" * 5_000), 0.1) == {}, "three are too few to say"


ENGLISH = [
    f"The parcel number {i} left our house on Monday and should be with you by the end of this week." for i in range(30)
]
GERMAN = "Ihr Paket hat unser Haus am Montag verlassen und sollte noch in dieser Woche bei Ihnen sein."
FRENCH = "Votre colis a quitté notre entrepôt lundi et devrait arriver chez vous avant la fin de la semaine."


def test_answers_in_a_language_of_no_reference_are_found() -> None:
    settings = Curate()
    found = curate.foreign(answers(ENGLISH[0], GERMAN, "Ja, gern."), ENGLISH, settings)
    assert set(found) == {1}, "two words are too short to tell"
    assert found[1].detail.startswith("in de (")
    assert curate.foreign(answers(GERMAN, FRENCH), [*ENGLISH, GERMAN], settings).keys() == {1}
    assert curate.foreign(answers(GERMAN), ENGLISH[:19], settings) == {}, "too few references to know"
    assert curate.foreign(answers(GERMAN), ENGLISH, Curate(language=None)) == {}
    # One text in two hundred is more likely mistaken than meant.
    assert set(curate.foreign(answers(GERMAN), [*ENGLISH * 7, GERMAN], settings)) == {0}


def test_a_language_is_told_from_so_many_letters_on() -> None:
    assert Languages(0.9, 10).of("Ich kann mich nicht anmelden")[0] == "de"  # type: ignore[index]
    assert Languages(0.9, 25).of("Ich kann mich nicht anmelden") is None
    assert Languages(0.9, 1).of("4711 4712") is None


def test_of_answers_that_say_the_same_one_stays() -> None:
    texts = ["Please restart the router.", "please restart the router", "Call us on Monday."]
    found = curate.repeated(answers(*texts), 0.9)
    assert set(found) in ({0}, {1})
    assert all(finding.like in (0, 1) and finding.similarity == 1.0 for finding in found.values())


ANSWERED = st.lists(st.sampled_from(COLOURS.labels), max_size=40)


@given(ANSWERED, ANSWERED, st.floats(1, 5), st.randoms(use_true_random=False))
def test_downsampling_bounds_the_imbalance_whatever_the_order(
    texts: list[str], labelled: list[str], most: float, chance: random.Random
) -> None:
    train = [{"id": str(i), "output": label} for i, label in enumerate(labelled)]
    given_answers = answers(*texts)
    found = curate.too_many(given_answers, train, COLOURS, most, seed=7)
    kept = [answer for place, answer in enumerate(given_answers) if place not in found]
    before, _ = curate.classes(given_answers, train, COLOURS)
    after, _ = curate.classes(kept, train, COLOURS)
    if len(before) > 1:
        allowed, fixed = int(most * min(before.values())), Counter(labelled)
        for label in before:
            assert after[label] == min(before[label], max(allowed, fixed[label])), "no row goes without need"
    else:
        assert not found
    mixed = chance.sample(given_answers, len(given_answers))
    again = curate.too_many(mixed, train, COLOURS, most, seed=7)
    assert {mixed[place].id for place in again} == {given_answers[place].id for place in found}
    assert curate.too_many(kept, train, COLOURS, most, seed=7) == {}


def test_free_text_is_what_is_no_label_and_no_object() -> None:
    assert curate.is_free_text(FREE)
    assert curate.is_free_text(QuestionAnswering(None, 9))
    assert not curate.is_free_text(COLOURS)
    assert not curate.is_free_text(TASK)


@given(st.lists(st.text("ab ", min_size=1, max_size=12), max_size=12), st.sampled_from([0.6, 0.9]))
def test_no_two_answers_that_stay_are_alike(texts: list[str], threshold: float) -> None:
    found = curate.repeated(answers(*texts), threshold)
    kept = [text for place, text in enumerate(texts) if place not in found]
    alike = Alike(kept)
    assert all(alike.similarity(a, b) < threshold for a in range(len(kept)) for b in range(a))
