"""ROUGE, BLEU and chrF from summed columns: the values of rouge-score and sacrebleu on whole corpora."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from slmops.tasks.figures import measured
from slmops.tasks.overlap import overlap, overlap_figures

ANSWERS = [
    "the dog bit the man.",
    "it was not unexpected.",
    "the man bit him first.",
    "",
    "yes",
    "Der Zug fährt um 9:30 Uhr — wirklich!",
]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."],
    ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
    ["Nothing was said.", "Silence."],
    ["no", "yes, of course"],
    ["Der Zug fährt um 9.30 Uhr.", "Um halb zehn fährt der Zug, wirklich!"],
]
VOCABULARY = ["the", "a", "dog", "man", "bit", "had", "it", "was", "Zug", "£5", ",", "."]
WORDS = st.lists(st.sampled_from(VOCABULARY), max_size=9).map(" ".join)


def figures(answers: list[str], references: list[list[str]]) -> dict[str, float]:
    rows = [overlap(wanted, answer) for wanted, answer in zip(references, answers, strict=True)]
    return measured(overlap_figures(), rows)


def expected(answers: list[str], references: list[list[str]]) -> dict[str, float]:
    """What the libraries say of the corpus; theirs is a column of references each, and per cent."""
    columns = [list(column) for column in zip(*references, strict=True)]
    rouge = RougeScorer(["rouge1", "rouge2", "rougeL"])
    scores = [rouge.score_multi(wanted, answer) for wanted, answer in zip(references, answers, strict=True)]
    return {
        "bleu": BLEU(smooth_method="none").corpus_score(answers, columns).score / 100,
        "chrf": CHRF().corpus_score(answers, columns).score / 100,
        **{
            name: float(np.mean([score[theirs].fmeasure for score in scores]))
            for name, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL"))
        },
    }


@pytest.mark.parametrize("count", [1, 2])
def test_a_corpus_has_the_figures_of_the_libraries(count: int) -> None:
    references = [wanted[:count] for wanted in REFERENCES]
    assert figures(ANSWERS, references) == pytest.approx(expected(ANSWERS, references), abs=1e-12)


def test_smoothing_does_not_matter_where_a_4_gram_matches() -> None:
    """The example of sacrebleu's README, whose BLEU is 48.53 with its default settings."""
    answers = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    found = figures(answers, references)
    assert found["bleu"] == pytest.approx(0.4853, abs=5e-5)
    columns = [list(column) for column in zip(*references, strict=True)]
    assert found["bleu"] * 100 == pytest.approx(BLEU().corpus_score(answers, columns).score)


def test_published_values_of_rouge() -> None:
    """Lin (2004), section 3: of "police killed the gunman", S2 keeps 3 of 4 in order, S3 2 of 4."""
    reference = ["police killed the gunman"]
    assert figures(["police kill the gunman"], [reference])["rouge_l"] == pytest.approx(3 / 4)
    assert figures(["the gunman kill police"], [reference])["rouge_l"] == pytest.approx(2 / 4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS.filter(bool), WORDS.filter(bool)), min_size=1, max_size=5))
def test_any_corpus_has_the_figures_of_the_libraries(rows: list[tuple[str, str, str]]) -> None:
    answers, references = [row[0] for row in rows], [list(row[1:]) for row in rows]
    found = figures(answers, references)
    assert found == pytest.approx(expected(answers, references), abs=1e-9)
    assert all(0 <= value <= 1 + 1e-12 for value in found.values())
    assert figures(answers[::-1], references[::-1]) == pytest.approx(found)
