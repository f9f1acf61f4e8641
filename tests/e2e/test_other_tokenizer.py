"""A recipe whose student is another model than its teacher, with another tokenizer, through the real command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_project import Cli

from slmops import open_bundle
from slmops.models.source import save_model
from slmops.models.tokenizer import Tokenizer
from tests.families import make
from tests.tokenizer_kinds import tokenizer

pytestmark = pytest.mark.timeout(600)

RECIPE = """
name: other
task: {kind: classification, labels: [refund, thanks], max_answer_tokens: 16}
data: {train: train.jsonl, pool: pool.jsonl, test: test.jsonl}
teachers:
  - {model: ./gemma, fit: {epochs: 20, learning_rate: 3.0e-3, batch_tokens: 512, precision: fp32}}
teach: {precision: fp32, batch: 16}
student: {model: ./llama, carve: {layers: 3, extra_tokens: 50}}
train:
  objective: [{kind: span}, {kind: uld, logits: online, weight: 0.5}]
  epochs: 10
  learning_rate: 3.0e-3
  batch_tokens: 512
  precision: fp32
  baseline: false
evaluate: {latency_requests: 2, threads: 1}
"""
ASKED = {"refund": "please refund order {}, it is broken", "thanks": "hello, lamp {} is lovely"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    folder = tmp_path_factory.mktemp("other")
    (folder / "recipe.yaml").write_text(RECIPE)
    for side, first in (("train", 0), ("pool", 100), ("test", 200)):
        rows = [
            {"input": ASKED[label].format(first + i)} | ({"output": label} if side != "pool" else {})
            for i, label in enumerate([*ASKED] * 12)
        ]
        (folder / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, family, kind in (("gemma", "gemma3", "gemma"), ("llama", "llama", "bytes")):
        told = tokenizer(kind)
        (end,) = told.end_ids
        # Heads that onnxruntime takes: a multiple of 16 channels wide.
        form = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
        save_model(make(family, vocab_size=told.size, eos_token_id=end, **form), folder / name)
        told.save(folder / name)
    return Cli(folder)


def test_what_the_student_ships_with_is_its_own_tokenizer_and_its_teachers_answers(project):
    run = project.run("home")
    steps = run["steps"]
    assert run["metrics"]["student:pair"]["vocabulary"] == "own"
    assert run["metrics"]["teach"]["agreement"] > 0.9
    carved = json.loads((Path(steps["student:carved"]["path"]) / "carve.json").read_text())
    assert (carved["of_teacher"], len(carved["layers"])) == (False, 3)
    history = json.loads((Path(steps["student"]["path"]) / "history.json").read_text())
    assert history[-1]["span"] < 0.5 * history[0]["span"]
    evidence = json.loads((Path(steps["evaluate"]["path"]) / "evidence.json").read_text())
    accuracy = {role: model["quality"]["accuracy"] for role, model in evidence["models"].items()}
    assert accuracy["teacher"] > 0.9
    assert accuracy["student"] > 0.9
    bundle = project.folder / "bundles" / "other"
    assert open_bundle(bundle).predict("please refund order 300, it is broken").answer == "refund"
    shipped = Tokenizer.load(bundle / "model")
    assert set(shipped.backend.get_vocab()) <= set(tokenizer("bytes").backend.get_vocab())


def test_terms_that_do_not_apply_end_the_run_before_the_teacher_is_fitted(project):
    shutil.rmtree(project.folder / "early", ignore_errors=True)
    ended = project.end(
        project.start("run", "recipe.yaml", "--home", "early", "--set", "train.objective={kind: jsd}"), 2
    )
    assert "jsd: compares the models token by token" in ended.stderr
    assert "span and uld" in ended.stderr
    assert " teacher " not in ended.stderr
