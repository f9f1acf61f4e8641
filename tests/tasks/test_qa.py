"""Short answers, judged as the official script of SQuAD judges them."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.tasks import ParseFailure, QuestionAnswering, metrics
from slmops.tasks.qa import normalised, question, token_f1

TASK = QuestionAnswering(None, 16)
VOCABULARY = ["the", "a", "an", "The", "Denver", "Broncos", "broncos'", "U.S.", "1,000", "gold-themed", "—", "é"]
TEXTS = st.lists(st.sampled_from(VOCABULARY)).map(" ".join)


def official_normalised(text: str) -> str:
    """`normalize_answer` of evaluate-v1.1.py."""
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def official_f1(prediction: str, truth: str) -> float:
    """`f1_score` of evaluate-v2.0.py, which says what holds where no token is left."""
    given, wanted = official_normalised(prediction).split(), official_normalised(truth).split()
    if not given or not wanted:
        return float(given == wanted)
    same = sum((Counter(given) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(given), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


@given(TEXTS, TEXTS)
def test_it_judges_as_the_official_script(answer: str, truth: str) -> None:
    assert normalised(answer) == official_normalised(answer)
    assert token_f1(truth, answer) == pytest.approx(official_f1(answer, truth))


@pytest.mark.parametrize(
    ("answer", "references", "exact", "f1"),
    [
        ("denver broncos", ["Denver Broncos"], 1, 1),
        ("The Denver Broncos.", ["Denver Broncos", "Broncos"], 1, 1),
        ("Levi's Stadium", ["Santa Clara, California", "Levi's Stadium in Santa Clara"], 0, 2 * 2 / (2 + 5)),
        ("gold", ['"golden anniversary"', "gold-themed"], 0, 0),
        ("in 1976", "1976", 0, 2 / 3),
        ("the", "a", 1, 1),
        ("no", "yes", 0, 0),
    ],
)
def test_the_reference_that_suits_best_counts(answer, references, exact, f1) -> None:
    judged = TASK.judge(references, TASK.parse(answer))
    assert judged == pytest.approx({"exact_match": exact, "token_f1": f1, "valid_format": 1})


def test_no_answer_is_no_valid_one() -> None:
    empty = TASK.parse(" \n")
    assert isinstance(empty, ParseFailure)
    judged = [TASK.judge("1976", answer) for answer in (empty, "1976")]
    assert metrics(TASK, judged) == {"exact_match": 0.5, "token_f1": 0.5, "valid_format": 0.5}


def test_the_floor_is_the_most_frequent_answer() -> None:
    outputs = ["Paris", ["the gold!", "yellow"], "gold", "Gold", "Paris"]
    train = [{"id": str(i), "input": "?", "output": output} for i, output in enumerate(outputs)]
    assert TASK.floor(train, ["x", "y"]) == ["the gold!"] * 2


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("Who won?", "Who won?"),
        ({"question": " Who won? "}, "Who won?"),
        ({"question": "Who won?", "context": "Denver did.\n"}, "Context: Denver did.\nQuestion: Who won?"),
    ],
)
def test_an_input_is_a_question_with_or_without_context(given, text) -> None:
    assert question(given) == text


@pytest.mark.parametrize(
    "given", [7, [], {}, {"question": ""}, {"question": "?", "context": 3}, {"question": "?", "x": ""}]
)
def test_other_inputs_are_refused(given) -> None:
    assert isinstance(question(given), ParseFailure)
