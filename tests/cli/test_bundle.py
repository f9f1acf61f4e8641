"""`slmops predict` and `slmops chat`, as processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.bundle import write_bundle
from slmops.tasks import Classification, Extraction

TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {"intent": TEXT, "order": TEXT, "amount": TEXT, "name": TEXT},
    "required": ["intent"],
    "additionalProperties": False,
}
ORDER = "Where is order 4711?"


def slmops(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slmops.cli.main", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bundle(tiny_onnx, tmp_path_factory) -> Path:
    return make(tiny_onnx, tmp_path_factory.mktemp("bundle"), Extraction(SCHEMA, "intent", None, 60).describe())


@pytest.fixture(scope="module")
def wrong_task(tiny_onnx, tmp_path_factory) -> Path:
    """The model writes tickets; the bundle wants labels."""
    task = Classification(("yes", "no"), None, 60).describe()
    return make(tiny_onnx, tmp_path_factory.mktemp("wrong"), task)


def make(model: Path, out: Path, task: dict) -> Path:
    parts = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}, "evidence": {}}
    write_bundle(out, model_folder=model, task=task, **parts)
    return out


def test_predict_prints_the_answer(bundle, tiny):
    done = slmops("predict", bundle, ORDER)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(tiny.pairs[ORDER])
    assert done.stdout.count("\n") == 4, "one property a line"


def test_predict_reads_stdin_and_prints_one_object(bundle, tiny):
    done = slmops("predict", bundle, "--json", stdin="I want my 20 € back\n")
    record = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert record["answer"] == {"intent": "refund", "amount": "20 €"}
    assert record["failure"] is None
    assert record["text"] == tiny.pairs["I want my 20 € back"]
    assert record["tokens"] > 0
    assert record["latency_ms"] > 0


def test_predict_answers_a_file(bundle, tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": i, "input": text}) + "\n" for i, text in enumerate(tiny.pairs)))
    done = slmops("predict", bundle, "--file", path, "--quiet")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["answer"] for record in records] == [json.loads(answer) for answer in tiny.pairs.values()]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_text_that_is_no_answer_ends_with_1(wrong_task):
    done = slmops("predict", wrong_task, ORDER)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no answer:")
    assert "order_late" in done.stderr
    done = slmops("predict", wrong_task, ORDER, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["answer"] is None


def test_rows_without_an_answer_are_counted(wrong_task, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "Where is order 4711?"}\n')
    done = slmops("predict", wrong_task, "--file", path)
    assert json.loads(done.stdout)["failure"]
    assert done.returncode == 0
    assert "1 of 1 rows have no answer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "nowhere", "hello"], "nowhere is not a bundle"),
        (["predict", "BUNDLE", "hello", "--file", "rows.jsonl"], "exclude each other"),
        (["predict", "BUNDLE", "--file", "rows.jsonl"], "rows.jsonl: No such file"),
        (["predict", "BUNDLE", "word " * 500], "context of 128"),
        (["chat", "nowhere"], "nowhere is not a bundle"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(bundle, arguments, says):
    done = slmops(*[bundle if argument == "BUNDLE" else argument for argument in arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_chat_answers_line_by_line_until_the_end(bundle, tiny):
    texts = [*tiny.pairs, ORDER]
    done = slmops("chat", bundle, stdin="\n".join([texts[0], "", *texts[1:]]))
    answers = [json.loads(text) for text in (*tiny.pairs.values(), tiny.pairs[ORDER])]
    assert [json.loads(line) for line in done.stdout.splitlines()] == answers
    assert (done.returncode, done.stderr) == (0, "")


def test_chat_goes_on_after_a_line_it_cannot_answer(bundle, wrong_task, tiny):
    done = slmops("chat", bundle, stdin="word " * 500 + f"\n{ORDER}\n")
    assert json.loads(done.stdout) == json.loads(tiny.pairs[ORDER])
    assert "context of 128" in done.stderr
    assert done.returncode == 0
    done = slmops("chat", wrong_task, stdin=ORDER)
    assert done.stdout.splitlines() == [tiny.pairs[ORDER]]
    assert "no answer of its task" in done.stderr


def test_an_answer_comes_at_once(bundle):
    """It arrives while the process still waits for more input."""
    command = [sys.executable, "-m", "slmops.cli.main", "chat", str(bundle)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write(ORDER + "\n")
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100).startswith(b"{")
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
def labelling(tiny, tiny_onnx, tmp_path_factory) -> Path:
    """What the model writes are its labels."""
    task = Classification(tuple(sorted(set(tiny.pairs.values()))), None, 60).describe()
    return make(tiny_onnx, tmp_path_factory.mktemp("labelling"), task)


def test_predict_says_how_likely_each_label_is(labelling, tiny):
    done = slmops("predict", labelling, ORDER, "--probabilities")
    answer, first, *_, last = done.stdout.splitlines()
    assert (done.returncode, answer, last) == (0, tiny.pairs[ORDER], "not calibrated")
    share, label = first.split(maxsplit=1)
    assert (label, share[-1]) == (answer, "%")
    record = json.loads(slmops("predict", labelling, ORDER, "--probabilities", "--json").stdout)
    assert max(record["probabilities"], key=record["probabilities"].__getitem__) == record["answer"] == answer
    assert sum(record["probabilities"].values()) == pytest.approx(1)
    assert float(share[:-1]) == pytest.approx(100 * record["probabilities"][answer], abs=0.01)


def test_predict_tells_of_a_calibrated_bundle_when_it_is_unsure(labelling, tmp_path):
    sure = tmp_path / "sure"
    shutil.copytree(labelling, sure)
    manifest = json.loads((sure / "manifest.json").read_text())
    told = {"temperature": 50.0, "rows": 40, "answered_accuracy": 0.9, "abstain_below": 0.99}
    manifest["calibration"] = told | {"ece_before": 0.2, "ece_after": 0.1}
    (sure / "manifest.json").write_text(json.dumps(manifest))
    done = slmops("predict", sure, ORDER, "--probabilities")
    assert "unsure: below 99.00% the bundle is not right in 90% of its answers" in done.stdout


def test_rows_have_their_probabilities_where_they_are_wanted(labelling, bundle, tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"input": text}) + "\n" for text in tiny.pairs))
    done = slmops("predict", labelling, "--file", path, "--probabilities", "--quiet")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [max(one["probabilities"], key=one["probabilities"].get) for one in records] == list(tiny.pairs.values())
    refused = slmops("predict", bundle, ORDER, "--probabilities")
    assert refused.returncode == 2
