"""Teaching as a stage: what is kept, what is dropped, and when it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.stage import Context
from slmops.recipe.training import TeachSettings
from slmops.teach.answers import load_answers
from slmops.teach.stage import Teach


@pytest.fixture
def teach(tiny, tiny_onnx, task, tmp_path):
    """Runs the stage on a pool of these texts."""
    data = tmp_path / "data"
    data.mkdir()
    for name, folder in (("engine", tiny_onnx), ("model", tiny.folder)):
        shutil.copytree(folder, tmp_path / name / "model")

    def run(texts, *, task=task, **settings) -> tuple[Path, dict[str, float | str]]:
        (data / "task.json").write_text(json.dumps(task.describe()))
        write_jsonl(data / "pool.jsonl", ({"id": f"p{i}", "input": text} for i, text in enumerate(texts)))
        context = Context(out=tmp_path / "out", work=tmp_path / "work", seed=7)
        inputs = {name: tmp_path / name for name in ("data", "engine", "model") if (tmp_path / name).exists()}
        return context.out, dict(Teach().run(inputs, TeachSettings(**settings), context))

    return run


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
