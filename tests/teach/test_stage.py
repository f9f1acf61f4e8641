"""Teaching as stages: what is kept, what is dropped, how several teachers make one, and when they refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.stage import Context, one_by_one
from slmops.recipe.settings import Settings
from slmops.recipe.teachers import Asking
from slmops.teach.answers import Answer, load_answers, save_answers
from slmops.teach.combine import mixed
from slmops.teach.stage import (
    CheckTeachers,
    CheckTeachersSettings,
    Join,
    Mix,
    MixSettings,
    Route,
    RouteSettings,
    Teach,
)
from tests.teach.test_combine import bytes_alone


@pytest.fixture
def teach(tiny, tiny_onnx, task, tmp_path):
    """Runs the stage on a pool of these texts."""
    data = tmp_path / "data"
    data.mkdir()
    for name, folder in (("engine", tiny_onnx), ("model", tiny.folder)):
        shutil.copytree(folder, tmp_path / name / "model")

    def run(texts, *, task=task, spread=one_by_one, **settings) -> tuple[Path, dict[str, float | str]]:
        (data / "task.json").write_text(json.dumps(task.describe()))
        write_jsonl(data / "pool.jsonl", ({"id": f"p{i}", "input": text} for i, text in enumerate(texts)))
        context = Context(out=tmp_path / "out", work=tmp_path / "work", seed=7, spread=spread)
        inputs = {name: tmp_path / name for name in ("data", "engine", "model") if (tmp_path / name).exists()}
        return context.out, dict(Teach().run(inputs, Asking(**settings), context))

    return run


def test_a_pool_that_is_spread_is_answered_all_the_same(teach, tiny, tmp_path):
    asked = []

    def spread(function: str, items: Sequence[str]) -> Iterator[tuple[int, str]]:
        asked.append(len(items))
        yield from reversed(list(one_by_one(function, items)))

    known = list(tiny.pairs)
    out, figures = teach(known, top_logits=2)
    here = load_answers(out)
    shutil.rmtree(tmp_path / "work")
    assert teach(known, top_logits=2, batch=1, spread=spread) == (out, figures)
    assert asked == [len(known), 0]
    for ours, theirs in zip(load_answers(out), here, strict=True):
        assert (ours.id, ours.text) == (theirs.id, theirs.text)
        np.testing.assert_allclose(ours.top_log_probs, theirs.top_log_probs, atol=1e-4)


def test_answers_of_the_task_are_kept_and_others_dropped_with_the_reason(teach, tiny, task):
    known = list(tiny.pairs)
    narrow = {**task.schema, "properties": {**task.schema["properties"], "intent": {"enum": ["refund", "invoice"]}}}
    out, figures = teach(known, task=type(task)(narrow, "intent", None, 40), top_logits=2)
    kept, dropped = load_answers(out), read_jsonl(out / "dropped.jsonl")
    assert [answer.input for answer in kept] == [known[1], known[2]]
    assert [row["id"] for row in dropped] == ["p0", "p3"]
    assert all("intent" in row["reason"] for row in dropped)
    assert (figures["rows"], figures["dropped"], figures["agreement"]) == (2, 2, 1.0)
    assert kept[0].top_ids.shape[1] == 2


def test_an_empty_pool_is_refused(teach):
    with pytest.raises(BadInput, match="pool has no rows") as error:
        teach([])
    assert "data.pool" in (error.value.hint or "")


def test_a_teacher_without_one_good_answer_is_refused(teach, tiny, task):
    other = {**task.schema, "properties": {"intent": {"enum": ["nothing of this"]}}}
    with pytest.raises(SlmopsError, match="none of the teacher's 4 answers") as error:
        teach(list(tiny.pairs), task=type(task)(other, "intent", None, 40))
    assert "fit" in (error.value.hint or "")


def test_an_export_that_disagrees_with_its_model_is_refused(teach, tiny, tmp_path):
    import torch

    from slmops.models.source import load_model, save_model

    model = load_model(tiny.folder)
    with torch.no_grad():
        model.get_decoder().layers[0].mlp.down_proj.weight.mul_(-3)
    save_model(model, tmp_path / "model" / "model")
    with pytest.raises(SlmopsError, match="agrees with PyTorch on 0%"):
        teach(list(tiny.pairs), min_agreement=0.9)


def test_a_teacher_that_cannot_be_exported_writes_in_pytorch(teach, tiny, tmp_path):
    shutil.rmtree(tmp_path / "engine")
    known = list(tiny.pairs)
    out, figures = teach(known, engine="transformers", top_logits=3)
    answers = load_answers(out)
    assert [answer.text for answer in answers] == [tiny.pairs[text] for text in known]
    assert {answer.top_ids.shape[1] for answer in answers} == {3}
    # It is no export, so there is nothing that it might agree with.
    assert figures["rows"] == 4
    assert "agreement" not in figures


TOP = 3


class Teachers:
    """What several teachers, of which each is the tiny model, are said to have answered to the pool p0, p1, …"""

    def __init__(self, folder: Path, tiny, tiny_onnx, task, texts: Sequence[str]) -> None:
        self.folder, self.tiny, self.texts = folder, tiny, list(texts)
        (folder / "data").mkdir()
        (folder / "data" / "task.json").write_text(json.dumps(task.describe()))
        write_jsonl(folder / "data" / "pool.jsonl", ({"id": f"p{i}", "input": text} for i, text in enumerate(texts)))
        (folder / "engine").mkdir()
        (folder / "engine" / "model").symlink_to(tiny_onnx)
        self.inputs = {"data": folder / "data"}

    def add(self, answers: Mapping[int, str], dropped: Sequence[int] = ()) -> None:
        """One more: its answers by the number of the row, all with the same made-up probabilities."""
        n = sum(name.startswith("engine_") for name in self.inputs) + 1
        self.inputs |= {f"engine_{n}": self.folder / "engine", f"answers_{n}": self.folder / f"answers-{n}"}
        (end,) = self.tiny.tokenizer.end_ids
        kept = []
        for row, text in answers.items():
            tokens = np.array([*self.tiny.tokenizer.encode(text), end])
            top = np.stack([tokens, np.full_like(tokens, 0), np.full_like(tokens, 1)], 1).astype(np.int32)
            probs = np.log(np.tile(np.array([0.7, 0.2, 0.05], np.float32), (len(tokens), 1)))
            kept.append(Answer(f"p{row}", self.texts[row], text, tokens, top, probs))
        save_answers(self.inputs[f"answers_{n}"], kept)
        lost = [{"id": f"p{row}", "text": "?", "reason": f"teacher {n}: no JSON"} for row in dropped]
        write_jsonl(self.inputs[f"answers_{n}"] / "dropped.jsonl", lost)

    def give_rows(self, n: int, rows: Sequence[int]) -> None:
        self.inputs[f"rows_{n}"] = self.folder / f"rows-{n}"
        self.inputs[f"rows_{n}"].mkdir()
        write_jsonl(self.inputs[f"rows_{n}"] / "pool.jsonl", ({"id": f"p{row}"} for row in rows))

    def run(self, stage: Any, settings: Any) -> tuple[dict[str, Answer], list[str], Mapping[str, float | str]]:
        """The answers, the ids of the rows that were dropped, and the figures."""
        out = self.folder / "out"
        out.mkdir()
        figures = stage.run(self.inputs, settings, Context(out=out, work=self.folder / "work", seed=7))
        answers = {answer.id: answer for answer in load_answers(out)}
        return answers, [row["reason"] for row in read_jsonl(out / "dropped.jsonl")], figures


@pytest.fixture
def teachers(tiny, tiny_onnx, task, tmp_path) -> Teachers:
    return Teachers(tmp_path, tiny, tiny_onnx, task, list(tiny.pairs))


REFUND, OTHER, LATE = ('{"intent":"refund"}', '{"intent":"other"}', '{"intent":"order_late"}')


def test_of_several_answers_the_heaviest_is_learned_with_what_all_find_likely(teachers, engine, tiny):
    teachers.add({0: REFUND, 1: REFUND}, dropped=[2, 3])
    teachers.add({0: REFUND, 1: OTHER, 2: LATE}, dropped=[3])
    answers, dropped, figures = teachers.run(Mix(), MixSettings(weights=[1.0, 3.0], batch=2, top_logits=TOP))
    assert {id: answer.text for id, answer in answers.items()} == {"p0": REFUND, "p1": OTHER, "p2": LATE}
    assert dropped == ["teacher 1: no JSON"]
    assert figures == {"rows": 3, "dropped": 1, "rows_of_2": 3}
    # Both wrote this, and with the same probabilities.
    probs = np.exp(answers["p0"].top_log_probs)
    np.testing.assert_allclose(probs, [[0.7, 0.2, 0.05]] * len(answers["p0"].tokens), rtol=1e-5)
    # The first reads what the second wrote.
    told = answers["p1"]
    (read,) = engine.score_top([tiny.prompt(told.input)], [told.tokens.tolist()], top_logits=TOP)
    own = load_answers(teachers.inputs["answers_2"])[1]
    ids, log_probs = mixed([read, (own.top_ids, own.top_log_probs)], [1.0, 3.0])
    assert np.array_equal(told.top_ids, ids)
    np.testing.assert_allclose(told.top_log_probs, log_probs, atol=1e-3)


def test_without_probabilities_nobody_reads(teachers):
    teachers.add({0: REFUND})
    teachers.add({0: OTHER})
    answers, _, _ = teachers.run(Mix(), MixSettings(weights=[1, 1], batch=2, top_logits=0))
    assert answers["p0"].text == REFUND


def another_vocabulary(teachers: Teachers, tmp_path: Path) -> None:
    """Let the second teacher be one of single bytes."""
    tokenizer = bytes_alone(teachers.tiny.tokenizer)
    tokenizer.save(tmp_path / "bytes" / "model")
    teachers.inputs["engine_2"] = tmp_path / "bytes"


def test_words_of_another_vocabulary_are_learned_without_probabilities(teachers, tmp_path):
    teachers.add({0: REFUND, 1: REFUND})
    teachers.add({0: OTHER})
    another_vocabulary(teachers, tmp_path)
    answers, _, figures = teachers.run(Mix(), MixSettings(weights=[1.0, 2.0], batch=2, top_logits=TOP))
    assert {id: answer.text for id, answer in answers.items()} == {"p0": OTHER, "p1": REFUND}
    (end,) = teachers.tiny.tokenizer.end_ids
    for answer in answers.values():
        assert answer.tokens[: len(teachers.tiny.tokenizer.encode(answer.text))].tolist() == (
            teachers.tiny.tokenizer.encode(answer.text)
        )
        assert answer.top_ids.shape[1] == 0
    assert answers["p1"].tokens[-1] == end
    assert figures["rows_of_1"] == figures["rows_of_2"] == 1


def test_a_routed_row_has_the_answer_of_its_own_teacher_alone(teachers):
    teachers.add({0: REFUND, 1: REFUND, 2: REFUND})
    teachers.add({1: OTHER, 3: OTHER}, dropped=[2])
    teachers.give_rows(2, [1, 2, 3])
    answers, dropped, figures = teachers.run(Join(), Settings())
    assert [(id, answer.text) for id, answer in answers.items()] == [("p0", REFUND), ("p1", OTHER), ("p3", OTHER)]
    assert dropped == ["teacher 2: no JSON"]
    assert figures == {"rows": 3, "dropped": 1, "rows_of_1": 1, "rows_of_2": 2}
    assert answers["p1"].top_ids.shape[1] == TOP


def test_a_teacher_is_given_its_rows_by_a_field_or_by_the_first_ones_label(teachers, tmp_path):
    by_label = RouteSettings(by="label", routes={"refund": 2}, otherwise=1, teacher_number=2, input="input")
    teachers.add({0: REFUND, 1: OTHER}, dropped=[2, 3])
    (tmp_path / "out").mkdir()
    context = Context(out=tmp_path / "out", work=tmp_path / "work", seed=7)
    inputs = {"data": teachers.inputs["data"], "answers": teachers.inputs["answers_1"]}
    assert Route().run(inputs, by_label, context) == {"rows": 1}
    assert [row["id"] for row in read_jsonl(context.out / "pool.jsonl")] == ["p0"]
    assert (context.out / "task.json").read_bytes() == (inputs["data"] / "task.json").read_bytes()
    rows = [{"id": f"p{i}", "input": text, "from": "mail" if i else "chat"} for i, text in enumerate(teachers.texts)]
    write_jsonl(tmp_path / "pool.jsonl", rows)
    by_field = RouteSettings(by="from", routes={"mail": 2, "chat": 1}, otherwise=None, teacher_number=2, input="input")
    inputs = {"data": teachers.inputs["data"], "pool": tmp_path / "pool.jsonl"}
    assert Route().run(inputs, by_field, context) == {"rows": 3}
    with pytest.raises(BadInput, match="no row of the pool to teacher 3"):
        Route().run(inputs, by_field.model_copy(update={"teacher_number": 3}), context)


def test_teachers_of_other_vocabularies_are_refused_where_probabilities_are_to_be_learned(teachers, tmp_path):
    teachers.add({0: REFUND})
    teachers.add({0: REFUND})
    inputs = {f"model_{n}": teachers.inputs[f"engine_{n}"] for n in (1, 2)}
    out = tmp_path / "out"
    out.mkdir()
    context = Context(out=out, work=tmp_path / "work", seed=7)
    settings = CheckTeachersSettings(names=["local", "big"], stored=["forward_kl"])
    assert CheckTeachers().run(inputs, settings, context) == {"teachers": 2, "other_vocabularies": 0}
    another_vocabulary(teachers, tmp_path)
    inputs["model_2"] = teachers.inputs["engine_2"]
    with pytest.raises(BadInput, match="the teacher big has another vocabulary than local") as error:
        CheckTeachers().run(inputs, settings, context)
    assert "{kind: text}" in (error.value.hint or "")
    words = settings.model_copy(update={"stored": []})
    assert CheckTeachers().run(inputs, words, context) == {"teachers": 2, "other_vocabularies": 1}
    assert json.loads((out / "vocabularies.json").read_text()) == {"shared": False}
