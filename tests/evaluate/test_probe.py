"""Measuring a real model in a process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.engines import load_engine
from slmops.errors import SlmopsError
from slmops.evaluate import probe
from slmops.evaluate.stage import Floor, Score, ScoreSettings
from slmops.pipeline.stage import Context
from slmops.recipe.settings import Settings
from slmops.tasks import from_description

PARENT_BYTES = 500_000_000


class Counted:
    """Progress that adds up what was done."""

    total = 0.0
    done = 0.0

    def task(self, _title: str, total: float, _unit: str) -> Counted:
        self.total = total
        return self

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, amount: float = 1, **_: float) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        pass


@pytest.fixture(scope="module")
def data(task, tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    texts = list(tiny.pairs)
    rows = [{"id": f"r{i}", "input": texts[i % 4], "output": json.loads(tiny.pairs[texts[i % 4]])} for i in range(6)]
    write_jsonl(folder / "test.jsonl", rows)
    write_jsonl(folder / "train.jsonl", rows)
    (folder / "task.json").write_text(json.dumps(task.describe()))
    return folder


@pytest.fixture(scope="module")
def score(data, tmp_path_factory):
    """Scores a model folder with an engine, from a process as large as one that has trained."""

    def run(engine: str, model: Path) -> tuple[Path, dict[str, Any], Counted]:
        folder = tmp_path_factory.mktemp(engine)
        (folder / "work").mkdir()
        (folder / "out").mkdir()
        shutil.copytree(model, folder / "in" / "model")
        counted = Counted()
        context = Context(out=folder / "out", work=folder / "work", seed=7, progress=counted)
        settings = ScoreSettings(latency_requests=4, threads=1)
        ballast = b"x" * PARENT_BYTES
        figures = dict(Score().run({"model": folder / "in", "data": data}, settings, context))
        assert len(ballast) == PARENT_BYTES
        return folder / "out", figures, counted

    return run


@pytest.fixture(scope="module", params=["transformers", "onnxruntime-genai"])
def measured(request, score, tiny, tiny_onnx):
    folders = {"transformers": tiny.folder, "onnxruntime-genai": tiny_onnx}
    return request.param, *score(request.param, folders[request.param])


def test_every_row_is_answered_in_order(measured, data, tiny):
    _, out, _, _ = measured
    rows, answers = read_jsonl(data / "test.jsonl"), read_jsonl(out / "predictions.jsonl")
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert [answer["text"] for answer in answers] == [tiny.pairs[row["input"]] for row in rows]


def test_figures_make_sense_together(measured, tiny):
    engine, out, shown, _ = measured
    figures = json.loads((out / "probe.json").read_text())
    assert figures["engine"] == engine
    percentiles = [figures[f"latency_p{p}_ms"] for p in (50, 90, 95, 99)]
    assert percentiles == sorted(percentiles)
    assert 0 < figures["ttft_p50_ms"] <= percentiles[0] < percentiles[-1] < 60_000
    low, high = figures["latency_spread_ms"]
    assert 0 < low < high
    assert 0 < figures["tpot_p50_ms"] < figures["latency_p50_ms"]
    tokens = [len(tiny.tokenizer.encode(answer)) + 1 for answer in tiny.pairs.values()]
    assert figures["tokens_per_answer"] == sum(tokens) / 4
    assert figures["tokens_per_s"] > 0
    assert figures["batched_rows_per_s"] > 0
    prompts = [len(tiny.prompt(text)) for text in tiny.pairs]
    assert figures["tokens_per_prompt"] == sum(prompts) / 4
    assert [sum(b["requests"] for b in figures["latency_by_length"])] == [4]
    assert figures["latency_by_length"][0]["tokens_from"] == min(prompts)
    assert figures["latency_by_length"][-1]["tokens_to"] == max(prompts)
    assert figures["weights_bytes"] > 0
    assert figures["threads"] == 1
    assert shown.items() <= figures.items()


def test_answers_under_load_are_counted_by_rows_and_by_tokens(measured, data, tiny):
    figures = json.loads((measured[1] / "probe.json").read_text())
    texts = [row["input"] for row in read_jsonl(data / "test.jsonl")]
    written = sum(len(tiny.tokenizer.encode(tiny.pairs[text])) + 1 for text in texts)
    assert figures["batched_tokens_per_s"] / figures["batched_rows_per_s"] == pytest.approx(written / len(texts))


def test_one_thread_keeps_one_core_busy(measured):
    figures = json.loads((measured[1] / "probe.json").read_text())
    assert 0.05 < figures["cpu_cores_used"] < 1.5
    assert figures["cpu_s_per_request"] > 0


def test_the_method_is_stated(measured):
    method = json.loads((measured[1] / "probe.json").read_text())["method"]
    for part in ("1 engine threads", "after 3 requests that do not count", "4 requests in 3 passes", "all 6 rows"):
        assert part in method


def test_reference_answers_get_their_likelihood(data, tiny, tmp_path):
    job = probe.Job(
        engine="transformers",
        model=str(tiny.folder),
        task=json.loads((data / "task.json").read_text()),
        rows=str(data / "test.jsonl"),
        latency_requests=1,
        threads=1,
        answers=True,
        out=str(tmp_path),
        reference_nll=True,
    )
    probe.probe(job)
    task, known = from_description(json.loads((data / "task.json").read_text())), 0
    predictions = read_jsonl(tmp_path / "predictions.jsonl")
    for row, test in zip(predictions, read_jsonl(data / "test.jsonl"), strict=True):
        wanted = task.write(test["output"])
        assert row["tokens"] == len(tiny.tokenizer.encode(wanted))
        # The model knows some of the answers by heart, to the letter; all others surprise it.
        assert (0 < row["nll"] < 0.5) == (row["text"] == wanted)
        known += row["text"] == wanted
    assert known


def test_peak_memory_is_that_of_one_engine_alone(measured):
    engine, _, figures, _ = measured
    # Not the ballast of the process that asked; nor PyTorch, of some 300 MB, where it is not the engine.
    limit = {"transformers": PARENT_BYTES + 50_000_000, "onnxruntime-genai": 200_000_000}[engine]
    assert 50_000_000 < figures["peak_rss_bytes"] < limit


def test_progress_ends_at_its_total(measured):
    _, _, _, counted = measured
    assert counted.total == 4 + 6
    assert counted.done == counted.total


def test_a_model_that_cannot_be_measured_is_named_with_the_reason(score, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SlmopsError, match="holds no model"):
        score("onnxruntime-genai", tmp_path)


def test_the_floor_answers_every_row_without_a_model(data, task, tmp_path):
    Floor().run({"data": data}, Settings(), Context(out=tmp_path, work=tmp_path, seed=7))
    answers = read_jsonl(tmp_path / "predictions.jsonl")
    assert [answer["id"] for answer in answers] == [f"r{i}" for i in range(6)]
    assert all(task.check(task.parse(answer["text"])) is None for answer in answers)
    assert "weights_bytes" not in json.loads((tmp_path / "probe.json").read_text())


def test_a_model_with_one_thread_has_one_core(measured):
    """What runs beside its engine has none of its own."""
    _, out, *_ = measured
    assert json.loads((out / "probe.json").read_text())["cpu_cores_used"] < 1.1


def test_the_loss_is_of_the_reference_answers(data, tiny, task, tmp_path):
    """In nats per token of theirs, the end token aside; nothing is answered for it."""
    job = probe.Job(
        engine="transformers",
        model=str(tiny.folder),
        task=task.describe(),
        rows=str(data / "test.jsonl"),
        latency_requests=1,
        threads=1,
        answers=False,
        out=str(tmp_path),
        loss=True,
    )
    figures = probe.probe(job)
    rows = read_jsonl(data / "test.jsonl")
    written = [task.write(row["output"]) for row in rows]
    answers = list(map(tiny.tokenizer.encode, written))
    engine = load_engine("transformers", tiny.folder, threads=1)
    scores = engine.score([tiny.tokenizer.prompt(task.render(row["input"])) for row in rows], answers)
    assert figures["loss"] == pytest.approx(
        -sum(map(sum, scores)) / sum(len(text.encode()) for text in written), rel=1e-4
    )
    assert not (tmp_path / "predictions.jsonl").exists()
