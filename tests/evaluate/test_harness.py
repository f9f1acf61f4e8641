"""lm-evaluation-harness on our engines, with a task file and data of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the extra slmops[lm-eval] is not installed")

from slmops.engines import load_engine
from slmops.errors import BadInput
from slmops.evaluate.harness import harness_model, run, shown
from slmops.evaluate.subjects import Local
from slmops.progress import Silent


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="module", params=["transformers", "onnxruntime-genai"])
def subject(request, tiny, tiny_onnx) -> Local:
    folder = {"transformers": tiny.folder, "onnxruntime-genai": tiny_onnx}[request.param]
    return Local("tiny", request.param, folder, "0" * 64)


@pytest.fixture(scope="module")
def tasks(tiny, tmp_path_factory) -> Path:
    """A multiple-choice task, a task of written answers and one of perplexity, all about what the model knows."""
    folder = tmp_path_factory.mktemp("tasks")
    answers = list(tiny.pairs.values())
    lines = []
    for gold, text in enumerate(tiny.pairs):
        prompt = tiny.tokenizer.render([{"role": "user", "content": text}])
        lines.append(json.dumps({"prompt": prompt, "choices": answers, "gold": gold, "answer": answers[gold]}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "target_delimiter": "",
    }
    kinds = {
        "tiny_choice": {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc"}],
        },
        "tiny_write": {
            "output_type": "generate_until",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["}"], "max_gen_toks": 60},
            "metric_list": [{"metric": "exact_match"}],
        },
        "tiny_rolling": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "word_perplexity"}],
        },
    }
    for name, kind in kinds.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **common, **kind}))
    return folder


def test_tasks_of_all_three_kinds(subject, tasks, tiny):
    names = ["tiny_choice", "tiny_write", "tiny_rolling"]
    found = run(subject, names, include=tasks, limit=None, threads=1, progress=Silent())["tasks"]
    assert found["tiny_choice"]["figures"]["acc,none"] == 1
    assert found["tiny_choice"]["rows"] == 4
    assert found["tiny_write"]["figures"]["exact_match,none"] == 0, "the stop is cut off, so nothing is exact"
    assert found["tiny_rolling"]["figures"]["word_perplexity,none"] > 1
    lines = shown({"tasks": found}).splitlines()
    assert any(line.startswith("tiny_choice") and "1.0000" in line for line in lines)


class Request:
    def __init__(self, *args: object) -> None:
        self.args = args


def test_requests_by_hand(subject, tiny):
    engine = load_engine(subject.engine, subject.folder, threads=1)
    model = harness_model(engine, tiny.tokenizer, Silent())
    text, answer = next(iter(tiny.pairs.items()))
    written = tiny.tokenizer.encode(answer)
    # The harness moves spaces at the end of a context behind it, so this one ends with the answer's first token.
    begun = tiny.tokenizer.decode(written[:1])
    prompt = tiny.tokenizer.render([{"role": "user", "content": text}]) + begun
    answer, ids, rest = answer.removeprefix(begun), tiny.tokenizer.encode(prompt), written[1:]
    (good, greedy), (bad, other) = model.loglikelihood([Request(prompt, answer), Request(prompt, "invoice")])
    assert good == pytest.approx(float(engine.score([ids], [rest])[0].sum()), abs=1e-3)
    assert good > bad
    assert (greedy, other) == (True, False)
    (rolling,) = model.loglikelihood_rolling([Request(begun + answer)])
    (end,) = tiny.tokenizer.end_ids
    assert rolling == pytest.approx(float(engine.score([[end]], [written])[0].sum()), abs=1e-3)
    # Longer than the context: in windows, each token once.
    long = " ".join([answer] * 12)
    (rolling,) = model.loglikelihood_rolling([Request(long)])
    assert np.isfinite(rolling)
    assert rolling < 0
    assert model.generate_until([Request(prompt, {"until": ["late"]})]) == [answer[: answer.index("late")]]
    assert model.generate_until([Request(prompt, {"until": [], "max_gen_toks": 60})]) == [answer]
    with pytest.raises(BadInput, match="num_beams"):
        model.generate_until([Request(prompt, {"num_beams": 4})])


def test_what_cannot_be_run_is_named(subject, tasks, tmp_path):
    told = {"limit": None, "threads": 1, "progress": Silent()}
    with pytest.raises(BadInput, match="no task nonsense"):
        run(subject, ["nonsense"], include=tasks, **told)
    with pytest.raises(BadInput, match="there is no folder"):
        run(subject, ["tiny_choice"], include=tmp_path / "none", **told)


def test_the_command_on_a_model_folder(tiny, tasks):
    command = [sys.executable, "-m", "slmops.cli.main", "harness", str(tiny.folder), "--tasks", "tiny_choice"]
    command += ["--include", str(tasks), "--limit", "2", "--json", "--quiet", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["tasks"]["tiny_choice"]
    assert (result["figures"]["acc,none"], result["rows"]) == (1, 2)


def test_without_the_extra_the_command_says_how_to_get_it(tiny, monkeypatch):
    for name in ("lm_eval", "lm_eval.evaluator"):
        monkeypatch.setitem(sys.modules, name, None)
    local = Local("tiny", "transformers", tiny.folder, "0" * 64)
    with pytest.raises(BadInput, match="cannot be imported") as error:
        run(local, ["x"], include=None, limit=None, threads=1, progress=Silent())
    assert error.value.hint == "pip install 'slmops[lm-eval]'"
