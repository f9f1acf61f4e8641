"""Answers come from the folder alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from slmops.bundle import write_bundle
from slmops.bundle.rows import predict_rows
from slmops.errors import BadInput
from slmops.tasks import Classification, ParseFailure


def test_answers(opened, tiny):
    for text, answer in tiny.pairs.items():
        prediction = opened.predict(text)
        assert prediction.answer == json.loads(answer)
        assert prediction.text == answer
        assert prediction.failure is None
        assert prediction.tokens == len(tiny.tokenizer.encode(answer)) + 1
        assert prediction.latency_ms > 0


def test_many_answers_are_those_of_one_by_one(opened, tiny):
    texts = list(tiny.pairs)
    many = opened.predict_many(texts * 10)
    assert [prediction.text for prediction in many] == [opened.predict(text).text for text in texts] * 10
    assert opened.predict_many([]) == []


def test_what_is_no_answer_says_why(opened):
    labels = replace(
        opened,
        manifest=opened.manifest.model_copy(
            update={"task": Classification(labels=("yes", "no"), instruction=None, max_answer_tokens=5).describe()}
        ),
    )
    prediction = labels.predict("Where is order 4711?")
    assert isinstance(prediction.answer, ParseFailure)
    assert "not one of the labels" in prediction.failure
    assert prediction.plain()["answer"] is None
    assert prediction.plain()["failure"] == prediction.failure


def test_chat_streams_the_whole_answer(opened, tiny):
    for text, answer in tiny.pairs.items():
        pieces = list(opened.chat([{"role": "user", "content": text}]))
        assert len(pieces) > 3
        assert "".join(pieces) == answer
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_text_that_is_too_long(opened):
    with pytest.raises(BadInput, match="context of 128"):
        opened.predict("word " * 200)


def test_rows_of_a_file(opened, tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"id": f"r{i}", "input": text, "output": "ignored"} for i, text in enumerate(tiny.pairs)]
    lines = [json.dumps(row) for row in rows] + ["", json.dumps({"input": "Where is order 4711?"})]
    path.write_text("\n".join(lines))
    records = list(predict_rows(opened, path))
    assert [record["id"] for record in records] == ["r0", "r1", "r2", "r3", "row-5"]
    answers = [json.loads(answer) for answer in tiny.pairs.values()]
    assert [record["answer"] for record in records] == [*answers, answers[0]]


def test_a_bad_row_stops_before_anything_is_asked(opened, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "Where is order 4711?"}\n{"input": \n')
    with pytest.raises(BadInput, match=r"rows.jsonl:2"):
        next(predict_rows(opened, path))


def test_progress_counts_rows(opened, tmp_path):
    from slmops.console import Lines

    path = tmp_path / "rows.csv"
    path.write_text("id,input\na,Where is order 4711?\nb,hello\n")
    said: list[str] = []
    assert [record["id"] for record in predict_rows(opened, path, progress=Lines(said.append))] == ["a", "b"]
    assert "2 of 2 rows" in said[-1]


ASK = """
import json, sys
from slmops.bundle import open_bundle
answer = open_bundle(sys.argv[1], threads=1).predict("I want my 20 € back").answer
print(json.dumps([answer, sorted({"torch", "transformers", "onnx", "pandas"} & set(sys.modules))]))
"""


def test_a_copy_answers_alone_and_without_torch(tiny_onnx, task, tmp_path):
    """All that the bundle was made from is deleted, and the asking process starts elsewhere."""
    model = shutil.copytree(tiny_onnx, tmp_path / "store" / "model")
    for path in model.iterdir():
        path.chmod(0o444)  # as the store keeps its files
    parts = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}, "evidence": {}}
    write_bundle(tmp_path / "store" / "bundle", model_folder=model, task=task.describe(), **parts)
    linked = (tmp_path / "store" / "bundle" / "model" / "model.onnx").stat()
    assert linked.st_nlink == 2, "the store's files are linked, not copied"
    shutil.copytree(tmp_path / "store" / "bundle", tmp_path / "elsewhere" / "copy")
    shutil.rmtree(tmp_path / "store")
    command = [sys.executable, "-c", ASK, "copy"]
    environment = {**os.environ, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [{"intent": "refund", "amount": "20 €"}, []]
