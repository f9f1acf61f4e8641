"""`slmops regression add`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.bundle import write_bundle
from slmops.tasks import Classification


@pytest.fixture
def bundle(tiny_onnx, tmp_path) -> Path:
    task = Classification(("late", "refund"), None, 8).describe()
    parts = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}, "evidence": {}}
    write_bundle(tmp_path / "bundle", model_folder=tiny_onnx, task=task, **parts)
    return tmp_path / "bundle"


def test_a_row_is_added_and_told(slmops, bundle, tmp_path):
    done = slmops("regression", "add", bundle, "where?", "--answer", "late", "--file", "r.jsonl", "--note", "ticket 7")
    assert (done.returncode, done.stderr) == (0, "")
    row = json.loads((tmp_path / "r.jsonl").read_text())
    assert done.stdout == f"r.jsonl: added {row['id']}\n"
    assert (row["input"], row["output"], row["note"]) == ("where?", "late", "ticket 7")
    again = slmops(
        "regression", "add", bundle, "when?", "--answer", "refund", "--file", "r.jsonl", "--id", "x", "--json"
    )
    assert json.loads(again.stdout) == {"id": "x", "input": "when?", "output": "refund"}
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "answer", "problem"),
    [("where?", "sometime", "is not one of the labels"), ("Where? ", "late", "r.jsonl:1: the text is in the suite")],
)
def test_a_row_that_does_not_fit_ends_with_2(slmops, bundle, tmp_path, text, answer, problem):
    slmops("regression", "add", bundle, "where?", "--answer", "late", "--file", "r.jsonl")
    done = slmops("regression", "add", bundle, text, "--answer", answer, "--file", "r.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1
