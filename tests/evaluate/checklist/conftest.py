"""A tiny bundle that knows four answers, and the same bundle on engines that go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from slmops.bundle import open_bundle, write_bundle
from slmops.data.read import write_jsonl
from slmops.engines import ENGINES
from slmops.evaluate.checklist import served
from slmops.evaluate.checklist.served import Served
from slmops.evaluate.checklist.subject import Subject
from slmops.progress import Silent
from slmops.tasks import Extraction

MAX_TOKENS = 40


@pytest.fixture(scope="session")
def make_bundle(task: Extraction, tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a bundle around the tiny model; what differs from the healthy one is given by name."""

    def write(name: str = "healthy", **changes: object) -> Path:
        out = tmp_path_factory.mktemp("bundles") / name
        parts = {
            "engine": "onnxruntime-genai",
            "model_folder": tiny_onnx,
            "task": Extraction(task.schema, "intent", None, MAX_TOKENS).describe(),
            "evidence": {"n_test": 4, "models": {"shipped": {"quality": {"exact_match": 1.0}}}},
        }
        write_bundle(out, name=name, version="1", lineage={}, **parts | changes)
        return out

    return write


@pytest.fixture(scope="session")
def healthy(make_bundle) -> Path:
    return make_bundle()


@pytest.fixture(scope="session")
def rows_file(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    pairs = enumerate(tiny.pairs.items())
    write_jsonl(path, ({"id": f"r{i}", "input": text, "output": json.loads(answer)} for i, (text, answer) in pairs))
    return path


@pytest.fixture
def faulty(make_bundle, monkeypatch) -> Callable[[str], Path]:
    """The bundle on an engine of `faulty.py`."""
    monkeypatch.setattr(served, "MODULE", "faulty")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")

    def write(fault: str) -> Path:
        name = f"faulty-{fault}"
        monkeypatch.setitem(ENGINES, name, "faulty:known to the process that serves it")
        return make_bundle(fault, engine=name)

    return write


@pytest.fixture
def subject(rows_file):
    """Puts a bundle under examination; its process ends with the test."""
    from slmops.evaluate.checklist.subject import in_domain

    open_: list[Served] = []

    def examine(folder: Path, *, rows: bool = True) -> Subject:
        bundle = open_bundle(folder, threads=1)
        open_.append(Served(folder, threads=1))
        return Subject(bundle, open_[-1], in_domain(bundle, rows_file) if rows else [], Silent())

    yield examine
    for one in open_:
        one.__exit__(None, None, None)
