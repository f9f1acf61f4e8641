"""What a teacher wrote comes back from the disk as it was."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.teach.answers import Answer, load_answers, save_answers


def answer(number: int, text: str, tokens: int, k: int) -> Answer:
    rng = np.random.default_rng(number)
    return Answer(
        id=f"row-{number}",
        input=text,
        text=text[::-1],
        tokens=rng.integers(0, 50_000, tokens, dtype=np.int64),
        top_ids=rng.integers(0, 50_000, (tokens, k), dtype=np.int32),
        top_log_probs=-rng.random((tokens, k), dtype=np.float32),
    )


def assert_same(ours: Answer, theirs: Answer) -> None:
    for field in fields(Answer):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        assert np.array_equal(one, other), field.name
        assert getattr(one, "dtype", None) == getattr(other, "dtype", None), field.name
        assert getattr(one, "shape", None) == getattr(other, "shape", None), field.name


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(rows=st.lists(st.tuples(TEXTS, st.integers(1, 5)), max_size=6), k=st.integers(0, 3))
def test_answers_come_back_as_they_were(rows, k):
    answers = [answer(number, text, tokens, k) for number, (text, tokens) in enumerate(rows)]
    with TemporaryDirectory() as folder:
        save_answers(Path(folder, "answers"), answers)
        loaded = load_answers(Path(folder, "answers"))
    for before, after in zip(answers, loaded, strict=True):
        assert_same(before, after)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\r", "\n"])
def test_characters_that_some_take_for_line_ends_do_not_part_a_row(tmp_path, separator):
    rows = [answer(0, f"one{separator}row", 2, 1), answer(1, "another", 1, 1)]
    save_answers(tmp_path, rows)
    assert [row.input for row in load_answers(tmp_path)] == [f"one{separator}row", "another"]


def test_the_table_of_texts_is_written_last(tmp_path, monkeypatch):
    def no_room(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("slmops.teach.answers.save_file", no_room)
    with pytest.raises(OSError, match="no room"):
        save_answers(tmp_path, [answer(0, "text", 2, 1)])
    assert not (tmp_path / "answers.jsonl").exists()
