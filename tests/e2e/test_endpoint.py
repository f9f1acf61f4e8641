"""A recipe whose teacher is behind an endpoint, through the real command line, with a budget that ends it once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_project import Cli

from slmops.models.source import save_model
from slmops.teach.answers import load_answers
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.families import make
from tests.tokenizer_kinds import tokenizer

pytestmark = pytest.mark.timeout(600)

RECIPE = """
name: bought
task: {{kind: classification, labels: [refund, thanks], max_answer_tokens: 16}}
data: {{train: train.jsonl, pool: pool.jsonl, test: test.jsonl}}
teachers:
  - name: big
    kind: endpoint
    base_url: {url}
    model: big-1
    key_env: SLMOPS_TEST_KEY
    price: {{input_usd: 2.0, output_usd: 10.0}}
    system: Answer refund or thanks.
teach: {{budget: {{usd: 0.002}}}}
student: {{model: ./llama, carve: {{layers: 3, extra_tokens: 50}}}}
train: {{epochs: 10, learning_rate: 3.0e-3, batch_tokens: 512, precision: fp32, baseline: false}}
evaluate: {{latency_requests: 2, threads: 1}}
"""
ASKED = {"refund": "please refund order {}, it is broken", "thanks": "hello, lamp {} is lovely"}


def knows(_number: int, text: str) -> Act:
    return Act(text="refund" if "refund" in text else "thanks")


@pytest.fixture
def project(tmp_path) -> Cli:
    for side, first in (("train", 0), ("pool", 100), ("test", 200)):
        rows = [
            {"input": ASKED[label].format(first + i)} | ({"output": label} if side != "pool" else {})
            for i, label in enumerate([*ASKED] * 12)
        ]
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = tokenizer("bytes")
    (end,) = told.end_ids
    # Heads that onnxruntime takes: a multiple of 16 channels wide.
    form = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    save_model(make("llama", vocab_size=told.size, eos_token_id=end, **form), tmp_path / "llama")
    told.save(tmp_path / "llama")
    return Cli(tmp_path)


def test_a_budget_ends_a_run_with_exit_code_4_and_a_larger_one_goes_on(project, monkeypatch):
    with TeacherServer(knows) as server:
        (project.folder / "recipe.yaml").write_text(RECIPE.format(url=server.url))
        keyless = project.end(project.start("run", "recipe.yaml", "--yes"), code=2)
        assert "the teacher big's key is missing: $SLMOPS_TEST_KEY is not set" in keyless.stderr
        monkeypatch.setenv("SLMOPS_TEST_KEY", "sk-very-secret")
        unasked = project.end(project.start("run", "recipe.yaml"), code=2)
        assert "24 of 24 rows to ask" in unasked.stderr
        assert server.asked.total() == 0

        poor = project.end(project.start("run", "recipe.yaml", "--yes"), code=4)
        assert "teach.budget.usd 0.002" in poor.stderr
        assert 0 < server.charged <= 0.002 * 10**12
        made = project.run(".slmops", "--yes", "--set", "teach.budget.usd=0.1")
    assert set(server.asked.values()) == {1}, "nothing is bought twice"
    assert sum(server.asked.values()) == 24
    assert made["metrics"]["teach"]["rows"] == 24
    assert made["metrics"]["teach"]["usd"] == pytest.approx(server.charged / 10**12)
    answers = load_answers(Path(made["steps"]["curate"]["path"]))
    assert all(answer.text == knows(0, answer.input).text for answer in answers)
    told = project.end(project.start("data-card", "last")).stdout
    assert "learned" in told
    card = json.loads(project.end(project.start("data-card", "--json")).stdout)
    assert card["rows"]["learned"] == len(answers) == 24
    assert (card["cost"]["requests"], card["cost"]["usd"]) == (24, pytest.approx(server.charged / 10**12))
    assert "What the student learned from" in (Path(made["steps"]["report"]["path"]) / "report.html").read_text()
    report = (Path(made["steps"]["report"]["path"]) / "report.html").read_text()
    card = "".join(path.read_text() for path in Path(made["steps"]["card"]["path"]).glob("*.md"))
    assert "big-1" in card
    everything = b"".join(p.read_bytes() for p in project.folder.rglob("*") if p.is_file() and p.stat().st_size < 10**6)
    assert b"very-secret" not in everything + report.encode()
