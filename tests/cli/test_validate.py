"""`slmops validate` as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.bundle import write_bundle
from slmops.data.read import write_jsonl
from slmops.tasks import Extraction
from tests.tiny_task import SCHEMA


def slmops(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slmops.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bundle(tiny_onnx, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "support"
    parts = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}, "evidence": {}}
    write_bundle(out, model_folder=tiny_onnx, task=Extraction(SCHEMA, "intent", None, 40).describe(), **parts)
    return out


@pytest.fixture(scope="module")
def rows(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_jsonl(path, ({"input": text, "output": json.loads(answer)} for text, answer in tiny.pairs.items()))
    return path


def test_the_table_fits_and_a_line_that_fails_ends_with_3(bundle, rows, tiny):
    done = slmops("validate", bundle, "--rows", rows, "--model", tiny.folder, "--quick", "--threads", "1")
    # Four answers by heart are no model: the texts of all checks together are mostly answered with nonsense.
    assert done.returncode == 3, done.stderr
    assert "error: output format: " in done.stderr
    assert "Traceback" not in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "answers in domain        pass    100.0% of 4 answered, 100.0% right" in done.stdout
    assert "control tokens stay text pass    0 of 3 pass through" in done.stdout
    assert "not enough evidence: 200 requests" in done.stdout
    assert "soak" in done.stderr, "what takes long shows where it is"


def test_one_object_with_every_line(bundle):
    done = slmops("validate", bundle, "--soak", "10", "--json", "--quiet", "--threads", "1")
    found = json.loads(done.stdout)
    assert done.returncode == 3
    assert found["failed"] == sum(line["state"] == "fail" for line in found["lines"]) > 0
    states = {line["name"]: line["state"] for line in found["lines"]}
    assert len(states) == 10
    assert {name for name, state in states.items() if state == "skipped"} == {
        "answers in domain",
        "no memory growth",
        "parity with the source",
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere is not a bundle"),
        (["BUNDLE", "--rows", "nowhere.jsonl"], "nowhere.jsonl"),
        (["BUNDLE", "--soak", "1"], "--soak"),
    ],
)
def test_bad_input_ends_with_2(bundle, arguments, says):
    done = slmops("validate", *[bundle if argument == "BUNDLE" else argument for argument in arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
