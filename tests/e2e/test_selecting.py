"""A pool that is bought in rounds until the budget ends, through the real command line, from data to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_project import Cli

from slmops.models.source import save_model
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.families import make
from tests.tokenizer_kinds import tokenizer

pytestmark = pytest.mark.timeout(600)

RECIPE = """
name: chosen
task: {{kind: classification, labels: [refund, thanks], max_answer_tokens: 16}}
data: {{train: train.jsonl, pool: pool.jsonl, test: test.jsonl, split: {{validation: 0.5}}}}
teachers: [{{kind: endpoint, base_url: "{url}", model: big-1, price: {{input_usd: 2.0, output_usd: 10.0}}}}]
teach: {{budget: {{requests: 9}}, select: {{first: 6, rows: 6, rounds: 3, patience: 9}}}}
student: {{model: ./llama, carve: {{layers: 1, choose: first, vocabulary: keep}}}}
train: {{epochs: 1, learning_rate: 3.0e-3, batch_tokens: 512, precision: fp32, baseline: false}}
evaluate: {{latency_requests: 2, threads: 1}}
"""
ASKED = {"refund": "please refund order {}, it is broken", "thanks": "hello, lamp {} is lovely"}


@pytest.fixture
def project(tmp_path) -> Cli:
    for side, rows in (("train", 8), ("pool", 24), ("test", 8)):
        texts = [(label, ASKED[label].format(f"{side}-{i}")) for i, label in enumerate([*ASKED] * (rows // 2))]
        told = ({"input": text} | ({} if side == "pool" else {"output": label}) for label, text in texts)
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    words = tokenizer("bytes")
    (end,) = words.end_ids
    # Heads that onnxruntime takes: a multiple of 16 channels wide.
    form = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    save_model(make("llama", vocab_size=words.size, eos_token_id=end, **form), tmp_path / "llama")
    words.save(tmp_path / "llama")
    return Cli(tmp_path)


def test_what_a_budget_bought_is_learned_and_the_report_shows_the_curve(project):
    with TeacherServer(lambda _n, text: Act(text="refund" if "refund" in text else "thanks")) as server:
        (project.folder / "recipe.yaml").write_text(RECIPE.format(url=server.url))
        made = project.run(".slmops", "--yes")
    assert sum(server.asked.values()) == 9
    taught = made["metrics"]["teach"]
    assert (taught["rows"], taught["ended"], taught["unbought"]) == (9, "budget", 15)
    assert made["metrics"]["curate"]["rows"] == 9
    report = Path(made["steps"]["report"]["path"])
    assert (
        "asked for 9 of the pool’s 24 rows, in 2 rounds, until the budget had no room"
        in (report / "report.html").read_text()
    )
    told = json.loads((report / "report.json").read_text())
    assert [point["asked"] for point in told["bought"]["points"]] == [6, 9]
