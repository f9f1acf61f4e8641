"""Two tokenizations of one answer are cut where both have a boundary, and nowhere else."""

from __future__ import annotations

from itertools import accumulate, combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.tasks import Classification
from slmops.teach.answers import Answer
from slmops.train.alignment import align_answers, align_references, common_spans, pieces
from slmops.train.prepare import reference_examples, retold_examples
from tests.tokenizer_kinds import KINDS, TEXTS, tokenizer

TASK = Classification(("refund", "other"), None, 8)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LIKE_THE_DATA = st.lists(st.sampled_from([*" ".join(TEXTS).split(), " ", "€", "🙂", "ß"]), max_size=8).map("".join)


def places(cut: list[str]) -> list[int]:
    """How much text lies behind each piece."""
    return list(accumulate(map(len, cut)))


def check(theirs: list[str], ours: list[str]) -> None:
    """All that is promised, for two cuts of one text."""
    spans = common_spans(theirs, ours)
    assert spans[-1] == (len(theirs), len(ours))
    for side, cut in ((0, theirs), (1, ours)):
        counts = [0, *(span[side] for span in spans)]
        # Every token is in one span, and every span has one.
        assert all(one < other for one, other in pairwise(counts)) or len(spans) == 1
        assert "".join("".join(cut[one:other]) for one, other in pairwise(counts)) == "".join(cut)
    for first, second in spans:
        assert "".join(theirs[:first]) == "".join(ours[:second])
    # No boundary that both have lies inside a span.
    ends = {0, *(sum(map(len, theirs[:first])) for first, _ in spans)}
    assert (set(places(theirs)) & set(places(ours))) <= ends


@pytest.mark.parametrize(("one", "other"), [*combinations(KINDS, 2), ("bytes", "bytes")])
@given(text=ANY_TEXT | LIKE_THE_DATA)
def test_spans_part_any_text_at_every_boundary_that_both_tokenizers_have(one, other, text):
    tokenizers = tokenizer(one), tokenizer(other)
    cuts = [pieces(each, [*each.encode(text), *each.end_ids]) for each in tokenizers]
    if len({"".join(cut) for cut in cuts}) == 1:
        check(*cuts)
    else:
        # Tokenizers that write a space as a mark take such a mark in the text for a space.
        assert "▁" in text
        assert common_spans(*cuts) == [(len(cuts[0]), len(cuts[1]))]


@given(
    text=st.text(alphabet="abc", min_size=1, max_size=12),
    cuts=st.tuples(st.sets(st.integers(1, 11)), st.sets(st.integers(1, 11))),
    empty=st.tuples(st.lists(st.integers(0, 12), max_size=3), st.lists(st.integers(0, 12), max_size=3)),
)
def test_spans_part_any_two_cuts(text, cuts, empty):
    both = []
    for inner, holes in zip(cuts, empty, strict=True):
        bounds = [0, *sorted(place for place in inner if place < len(text)), len(text)]
        cut = [text[one:other] for one, other in pairwise(bounds)]
        for hole in holes:
            cut.insert(min(hole, len(cut)), "")
        both.append(cut)
    check(*both)


@given(text=ANY_TEXT)
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_what_the_tokens_decode_to(kind, text):
    tokens = tokenizer(kind).encode(text)
    assert "".join(pieces(tokenizer(kind), tokens)) == tokenizer(kind).decode(tokens)


@pytest.mark.parametrize(
    ("theirs", "ours", "spans"),
    [
        (["re", "fund"], ["refund"], [(2, 1)]),
        (["a", "b", "c"], ["a", "b", "c"], [(1, 1), (2, 2), (3, 3)]),
        (["ab", "cd"], ["a", "bc", "d"], [(2, 3)]),
        (["ab", "cd"], ["a", "b", "cd"], [(1, 2), (2, 3)]),
        # The end token of each is a span of its own.
        (["ab", ""], ["a", "b", ""], [(1, 2), (2, 3)]),
        # Where only one has something behind the text, it belongs to the last of it.
        (["a", "b", ""], ["a", "b"], [(1, 1), (3, 2)]),
        (["", "", "€", "a"], ["€", "a"], [(3, 1), (4, 2)]),
        (["a", "", "€"], ["a", "", "", "€"], [(1, 1), (3, 4)]),
        ([""], ["", ""], [(1, 2)]),
        # A tokenizer that reads lower case tells another text: all of it is one span.
        (["A", "b", ""], ["a", "b", ""], [(3, 3)]),
    ],
)
def test_spans_of_texts_that_say_it(theirs, ours, spans):
    assert common_spans(theirs, ours) == spans


def test_bytes_of_a_character_are_one_piece_in_every_kind():
    for kind in KINDS:
        cut = pieces(tokenizer(kind), tokenizer(kind).encode("€🙂"))
        assert [piece for piece in cut if piece] == ["€", "🙂"]
        assert len(cut) >= 7


def answer(teacher: Tokenizer, text: str, top: int = 3) -> Answer:
    """The text in the teacher's tokens; the one written has -1/10, -2/10, ... and others -5, -6, ..."""
    tokens = np.array([*teacher.encode(text), end_of_answer(teacher)])
    ids = np.array([[token, *range(top - 1)] for token in tokens], dtype=np.int32)
    log_probs = np.array([[-(i + 1) / 10, *(-5.0 - np.arange(top - 1))] for i in range(len(tokens))], dtype=np.float32)
    return Answer("a", "hello", text, tokens, ids, log_probs)


def test_a_span_has_the_sum_of_its_tokens_and_the_distribution_of_its_first():
    teacher, student = tokenizer("gemma"), tokenizer("bytes")
    given_ = answer(teacher, "20 € for Anna 🙂")
    (told,) = retold_examples([given_], TASK, student, teacher.end_ids)
    (example,) = align_answers([told], [given_], TASK, student, teacher)
    aligned = example.aligned
    assert aligned is not None
    assert list(aligned.prompt) == teacher.prompt(TASK.render("hello"))
    assert aligned.answer == tuple(given_.tokens)
    assert tuple(aligned.ends[-1]) == (len(given_.tokens), len(example.answer))
    begins = [0, *aligned.ends[:-1, 0]]
    written = given_.top_log_probs[:, 0]
    for span, (begin, end) in enumerate(zip(begins, aligned.ends[:, 0], strict=True)):
        assert aligned.log_probs[span] == pytest.approx(written[begin:end].sum(), rel=1e-6)
        assert np.array_equal(aligned.begins[span], given_.top_log_probs[begin])
    assert (aligned.log_probs.dtype, aligned.begins.dtype) == (np.float32, np.float32)
    # The last is the end of the answer alone: the student learns to stop as its teacher does.
    assert aligned.ends[-1, 0] - aligned.ends[-2, 0] == aligned.ends[-1, 1] - aligned.ends[-2, 1] == 1


def test_a_token_that_is_not_among_those_kept_leaves_its_span_unknown():
    teacher, student = tokenizer("gemma"), tokenizer("bytes")
    given_ = answer(teacher, "20 €")
    given_.top_ids[0, 0] = 100_000
    (told,) = retold_examples([given_], TASK, student, teacher.end_ids)
    (example,) = align_answers([told], [given_], TASK, student, teacher)
    assert example.aligned is not None
    assert np.isnan(example.aligned.log_probs).tolist() == [True] + [False] * (len(example.aligned.ends) - 1)
    assert not np.isnan(example.aligned.begins).any()


def test_a_labelled_row_is_certain_of_its_answer_and_silent_about_others():
    teacher, student = tokenizer("phi3"), tokenizer("bytes")
    rows = [{"id": "1", "input": "hello", "output": "refund"}]
    examples = reference_examples(rows, TASK, student)
    (example,) = align_references(examples, rows, TASK, student, teacher, stored_k=4)
    aligned = example.aligned
    assert aligned is not None
    assert teacher.decode(aligned.answer) == "refund"
    assert aligned.answer[-1] == end_of_answer(teacher)
    assert aligned.log_probs.tolist() == [0.0] * len(aligned.ends)
    assert aligned.begins.shape == (len(aligned.ends), 4)
    assert np.isnan(aligned.begins).all()
