"""A teacher behind an endpoint writes rows and answers them, through the real command line, killed on the way."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest
from tiny_project import Cli

from slmops.data.read import read_jsonl
from slmops.models.source import save_model
from slmops.teach.answers import load_answers
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.families import make
from tests.tokenizer_kinds import tokenizer

pytestmark = pytest.mark.timeout(600)

RECIPE = """
name: bought
task: {{kind: classification, labels: [refund, thanks], max_answer_tokens: 16}}
data: {{train: train.jsonl, test: test.jsonl}}
teachers:
  - name: big
    kind: endpoint
    base_url: {url}
    model: big-1
    price: {{input_usd: 2.0, output_usd: 10.0}}
    concurrency: 2
teach:
  budget: {{usd: 0.5}}
  write: {{per_label: {{refund: 12, thanks: 12}}, texts: 2, shots: 2}}
student: {{model: ./llama, carve: {{layers: 3, extra_tokens: 50}}}}
train: {{epochs: 10, learning_rate: 3.0e-3, batch_tokens: 512, precision: fp32, baseline: false}}
evaluate: {{latency_requests: 2, threads: 1}}
"""
ASKED = {"refund": "please refund order {}, it is broken", "thanks": "hello, lamp {} is lovely"}


def knows(_number: int, text: str) -> Act:
    """What it writes follows from the request alone; of two texts for a label one in six is of the other."""
    if "JSON array" not in text:
        return Act(text="refund" if "refund" in text else "thanks")
    label = re.search(r"label of each text of yours is: (\w+)", text)[1]
    number = zlib.crc32(text.encode())
    other = "thanks" if label == "refund" and number % 3 == 0 else label
    return Act(text=json.dumps([ASKED[label].format(number), ASKED[other].format(number + 500)]))


@pytest.fixture
def project(tmp_path) -> Cli:
    for side, first in (("train", 0), ("test", 200)):
        rows = [
            {"input": ASKED[label].format(first + i), "output": label}
            for i, label in enumerate([*ASKED] * (12 if side == "test" else 6))
        ]
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = tokenizer("bytes")
    (end,) = told.end_ids
    form = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    save_model(make("llama", vocab_size=told.size, eos_token_id=end, **form), tmp_path / "llama")
    told.save(tmp_path / "llama")
    return Cli(tmp_path)


def test_a_run_without_a_pool_writes_one_and_a_kill_costs_nothing_twice(project):
    with TeacherServer(knows, delay_s=0.2, idempotent=True) as server:
        (project.folder / "recipe.yaml").write_text(RECIPE.format(url=server.url))
        unasked = project.end(project.start("run", "recipe.yaml"), code=2)
        assert "48 requests that write rows or solutions, 24 of 24 rows to ask" in unasked.stderr
        assert server.asked.total() == 0

        process = project.start("run", "recipe.yaml", "--yes")
        while server.asked.total() < 4:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.kill()
        process.communicate()
        server.delay_s = 0.0
        made = project.run(".slmops", "--yes")
        sent = Counter(headers["Idempotency-Key"] for headers in server.headers)
        assert sum(times - 1 for times in sent.values()) <= 2, "what was in flight at the kill, at most"
        before = server.asked.total()
        again = project.run(".slmops")
        assert server.asked.total() == before, "a run that buys nothing needs no --yes"
    assert again["steps"]["write"]["cached"]
    write, teach = made["metrics"]["write"], made["metrics"]["teach"]
    assert write["written"] == write["pool_rows"] == 24
    assert write["usd"] < teach["usd"] <= 0.5, "the answers and what was written"
    # What was in flight at the kill counts in full.
    assert server.charged <= round(teach["usd"] * 10**12)
    written = read_jsonl(Path(made["steps"]["write"]["path"]) / "written.jsonl")
    answers = {answer.id: answer for answer in load_answers(Path(made["steps"]["teach"]["path"]))}
    wrong = [row for row in written if knows(0, row["input"]).text != row["wanted"]]
    assert all(answers[row["id"]].text == row["wanted"] for row in written if row not in wrong)
    dropped = read_jsonl(Path(made["steps"]["teach"]["path"]) / "dropped.jsonl")
    assert [row["id"] for row in dropped] == [row["id"] for row in wrong]
    assert all(row["reason"] == "written for the label refund, answered with thanks" for row in dropped)
    assert teach["rows"] == 24 - len(wrong)
    report = json.loads((Path(made["steps"]["report"]["path"]) / "report.json").read_text())
    assert report["curated"]["rows"]["learned"] == teach["rows"]
    told = "Of the 24 rows of the pool a teacher wrote 24."
    assert told in (Path(made["steps"]["report"]["path"]) / "report.html").read_text()
    assert told in (Path(made["steps"]["card"]["path"]) / "MODEL_CARD.md").read_text()
