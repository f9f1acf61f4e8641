"""Rows and answers become examples in the student's own tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.pipeline.stage import Context
from slmops.recipe.training import Optimisation, StopEarly
from slmops.tasks import Classification
from slmops.teach.answers import Answer
from slmops.train.examples import Example
from slmops.train.prepare import (
    check_lengths,
    finished,
    fitting,
    reference_examples,
    retold_examples,
    taught_examples,
    unanswered_examples,
)
from slmops.train.stage import Fit, FitSettings

TASK = Classification(("refund", "other"), None, 8)


def answer(tokens: list[int], top_ids: list[list[int]]) -> Answer:
    ids = np.array(top_ids, dtype=np.int32).reshape(len(tokens), -1)
    return Answer("a1", "text", "", np.array(tokens), ids, np.zeros(ids.shape, dtype=np.float32))


def test_a_row_is_asked_as_it_will_be_and_its_answer_ends(tiny_tokenizer):
    (example,) = reference_examples([{"id": "1", "input": "hello", "output": "refund"}], TASK, tiny_tokenizer)
    assert list(example.prompt) == tiny_tokenizer.prompt(TASK.render("hello"))
    assert tiny_tokenizer.decode(example.answer) == "refund"
    assert example.answer[-1] == end_of_answer(tiny_tokenizer)
    assert example.soft is None


def test_a_reference_answer_can_be_a_certain_soft_target(tiny_tokenizer):
    row = {"id": "1", "input": "hello", "output": "refund"}
    (example,) = reference_examples([row], TASK, tiny_tokenizer, soft_k=3)
    assert example.soft is not None
    assert example.soft.ids.shape == (len(example.answer), 3)
    assert tuple(example.soft.ids[:, 0]) == example.answer


def test_taught_tokens_are_renumbered_and_lost_ones_marked(tiny_tokenizer):
    kept = [0, 2, 5, 9]
    # 3 lies between kept ones, 100,000 far behind them: a vocabulary may be much larger than what is kept.
    taught = answer([5, 2], [[5, 3], [2, 100_000]])
    (example,) = taught_examples([taught], TASK, tiny_tokenizer, kept)
    assert example.answer == (2, 1)
    assert example.soft is not None
    assert example.soft.ids.tolist() == [[2, -1], [1, -1]]


def test_with_the_whole_vocabulary_nothing_is_renumbered(tiny_tokenizer):
    (example,) = taught_examples([answer([5, 2], [[5], [2]])], TASK, tiny_tokenizer, None)
    assert example.answer == (5, 2)


def test_without_kept_probabilities_there_are_no_soft_targets(tiny_tokenizer):
    (example,) = taught_examples([answer([5, 2], [[], []])], TASK, tiny_tokenizer, None)
    assert example.soft is None


def written(tokenizer: Tokenizer, text: str, tokens: list[int]) -> Answer:
    return Answer("a1", "hello", text, np.array(tokens), np.zeros((len(tokens), 0)), np.zeros((len(tokens), 0)))


def test_an_answer_is_told_again_in_the_students_own_tokens(tiny_tokenizer):
    (end,) = tiny_tokenizer.end_ids
    foreign = [written(tiny_tokenizer, "refund", tokens) for tokens in ([100_000, 7], [100_000] * 8)]
    whole, cut = retold_examples(foreign, TASK, tiny_tokenizer, {7})
    assert whole.answer == (*tiny_tokenizer.encode("refund"), end)
    # The teacher did not end it.
    assert cut.answer == tuple(tiny_tokenizer.encode("refund"))
    assert list(whole.prompt) == tiny_tokenizer.prompt(TASK.render("hello"))


@pytest.mark.parametrize("lost", [3, 10, 100_000])
def test_an_answer_with_a_token_that_the_student_lacks_is_refused(tiny_tokenizer, lost):
    with pytest.raises(BadInput, match="answer to a1"):
        taught_examples([answer([5, lost], [[5], [5]])], TASK, tiny_tokenizer, [0, 2, 5, 9])


def test_rows_that_do_not_fit_are_counted_and_the_longest_is_named(tiny, tiny_tokenizer):
    rows = [{"id": f"row-{words}", "input": "word " * words} for words in (1, 40, 50)]
    examples = unanswered_examples(rows, TASK, tiny_tokenizer)
    check_lengths(examples[:1], ["row-1"], tiny.folder)
    with pytest.raises(BadInput, match=r"2 rows are longer than the model's context of 128 tokens; row row-50 has"):
        check_lengths(examples, [row["id"] for row in rows], tiny.folder)


def test_rows_that_do_not_fit_are_left_out_up_to_a_bound(tiny, tiny_tokenizer):
    rows = [{"id": f"row-{words}", "input": "word " * words} for words in (1, 2, 3, 50)]
    examples, names = unanswered_examples(rows, TASK, tiny_tokenizer), [row["id"] for row in rows]
    assert fitting(examples, names, tiny.folder, max_too_long=0.25) == examples[:3]
    with pytest.raises(BadInput, match=r"1 rows are longer .* has \d+, and max_too_long is 20.0% of 4"):
        fitting(examples, names, tiny.folder, max_too_long=0.2)
    with pytest.raises(BadInput, match="1 rows are longer"):
        fitting(examples[3:], names[3:], tiny.folder, max_too_long=0.99)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0, 0.99))
def test_cut_off_answers_are_left_out_up_to_a_bound(tiny_tokenizer, ends, bound):
    end = end_of_answer(tiny_tokenizer)
    examples = [Example((5,), (7, end) if whole else (7, 8)) for whole in ends]
    if any(ends) and ends.count(False) <= bound * len(ends):
        kept = finished(examples, tiny_tokenizer, max_cut_off=bound)
        assert kept == [i for i, whole in enumerate(ends) if whole]
    else:
        with pytest.raises(BadInput, match=f"{ends.count(False)} of the teacher's {len(ends)} answers were cut off"):
            finished(examples, tiny_tokenizer, max_cut_off=bound)


def folders(tiny, tmp_path, texts: dict[str, list[str]]) -> dict[str, Path]:
    """What the stage that fits a model reads."""
    model, data = tmp_path / "model", tmp_path / "data"
    model.mkdir()
    (model / "model").symlink_to(tiny.folder)
    data.mkdir()
    (data / "task.json").write_text(json.dumps(TASK.describe()))
    for side in ("train", "validation", "pool", "test"):
        rows = [
            {"id": f"{side}-{i}", "input": text, "output": "refund"} for i, text in enumerate(texts.get(side, ["a"]))
        ]
        write_jsonl(data / f"{side}.jsonl", rows)
    return {"model": model, "data": data}


def fit(tiny, tmp_path, settings: Optimisation, **texts: list[str]) -> tuple[Mapping[str, float | str], Path]:
    context = Context(out=tmp_path / "out", work=tmp_path / "work", seed=7)
    context.out.mkdir()
    return Fit().run(folders(tiny, tmp_path, texts), FitSettings(optimisation=settings), context), context.out


def test_the_stage_trains_on_what_fits_and_stops_by_the_validation_rows(tiny, tmp_path):
    settings = Optimisation(epochs=2, precision="fp32", max_too_long=0.5, stop_early=StopEarly(patience=1, every=1.0))
    figures, out = fit(tiny, tmp_path, settings, train=["hello", "word " * 200], validation=["thanks", "bye"])
    assert figures["left_out_too_long"] == 1
    history = json.loads((out / "history.json").read_text())
    assert figures["validation_loss"] == min(entry["validation"] for entry in history)
    assert (out / "model" / "model.safetensors").is_file()


def test_a_validation_row_that_does_not_fit_is_refused(tiny, tmp_path):
    settings = Optimisation(epochs=1, stop_early=StopEarly())
    with pytest.raises(BadInput, match="row validation-0 has"):
        fit(tiny, tmp_path, settings, validation=["word " * 200])


@pytest.mark.parametrize("side", ["train", "pool", "test"])
def test_a_text_that_no_later_stage_could_read_stops_the_first_training(tiny, tmp_path, side):
    model, data = tmp_path / "model", tmp_path / "data"
    model.mkdir()
    (model / "model").symlink_to(tiny.folder)
    data.mkdir()
    (data / "task.json").write_text(json.dumps(TASK.describe()))
    for name in ("train", "pool", "test"):
        text = "word " * (200 if name == side else 2)
        write_jsonl(data / f"{name}.jsonl", [{"id": f"{name}-1", "input": text, "output": "refund"}])
    context = Context(out=tmp_path / "out", work=tmp_path / "work", seed=7)
    with pytest.raises(BadInput, match=f"row {side}-1 has"):
        Fit().run({"model": model, "data": data}, FitSettings(optimisation=Optimisation()), context)
