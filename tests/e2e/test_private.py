"""Secrets of every kind in pool and test rows, through the real command line: where they are after a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_project import Cli

from slmops.models.source import save_model
from slmops.privacy.audit import EGRESS, read_log
from slmops.teach.answers import load_answers
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.families import make
from tests.privacy.canaries import CANARIES
from tests.tokenizer_kinds import tokenizer

pytestmark = pytest.mark.timeout(600)

RECIPE = """
name: private
task: {{kind: classification, labels: [refund, thanks], max_answer_tokens: 16}}
data: {{train: train.jsonl, pool: pool.jsonl, test: test.jsonl}}
privacy: {{loopback: remote, patterns: {{customer: "ZQ-[0-9]{{4}}"}}}}
teachers:
  - {{name: big, kind: endpoint, base_url: {url}, model: big-1, system: Answer refund or thanks.}}
student: {{model: ./llama, carve: {{layers: 3, extra_tokens: 50}}}}
train: {{epochs: 2, learning_rate: 3.0e-3, batch_tokens: 1024, precision: fp32, baseline: false}}
evaluate: {{latency_requests: 2, threads: 1}}
"""
ASKED = {"refund": "refund {} now, order {}", "thanks": "lamp {} is lovely, {}"}
SECRETS = {**CANARIES, "customer": "ZQ-9315"}

LOCAL = {
    "data": {"pool.jsonl", "test.jsonl"},  # the rows as they were given
    "teach": {"answers.jsonl"},  # the answers beside their rows, to be learned
    "curate": {"answers.jsonl", "card.json", "dropped.jsonl"},  # those learned from, and rows that are not
    "evaluate": {"errors.json"},  # the rows that the shipped model gets wrong
}
"""Files of a run that hold rows and stay on this machine, by step."""


@pytest.fixture
def project(tmp_path) -> Cli:
    for side, first in (("train", 0), ("pool", 100), ("test", 200)):
        secrets = [""] * 9 if side == "train" else SECRETS.values()
        rows = [
            {"input": ASKED[label].format(secret, first + i)} | ({"output": label} if side != "pool" else {})
            for label in ASKED
            for i, secret in enumerate(secrets)
        ]
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = tokenizer("bytes")
    (end,) = told.end_ids
    form = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    save_model(make("llama", vocab_size=told.size, eos_token_id=end, **form), tmp_path / "llama")
    told.save(tmp_path / "llama")
    return Cli(tmp_path)


def knows(number: int, text: str) -> Act:
    if "[PHONE_1]" in text:
        return Act("status", status=400)
    return Act(text="[EMAIL_9]" if "[IP_1]" in text else "refund" if "refund" in text else "thanks")


def test_no_secret_leaves_the_machine_nor_its_rows(project):
    with TeacherServer(knows) as server:
        (project.folder / "recipe.yaml").write_text(RECIPE.format(url=server.url))
        refused = project.end(project.start("run", "recipe.yaml", "--set", "privacy.egress=local-only"), code=2)
        assert "lets no text leave this machine" in refused.stderr
        assert server.asked.total() == 0
        process = project.end(project.start("run", "recipe.yaml", "--yes", "--json", "--home", "home"))
    made = json.loads(process.stdout)
    home, bundles = project.folder / "home", project.folder / "bundles"

    # The rows of one text are one question: all secrets of a kind look alike.
    assert server.asked.total() == made["metrics"]["teach"]["requests"] == len(read_log(home / "kept" / EGRESS)[0])
    assert made["metrics"]["teach"]["redacted"] == 2 * len(SECRETS)
    answers = load_answers(Path(made["steps"]["teach"]["path"]))
    assert sum(SECRETS["iban"] in answer.input for answer in answers) == 2, "learned with the row as it was"
    assert made["metrics"]["teach"]["dropped"] == 4

    local = {Path(made["steps"][step]["path"]) / name for step, names in LOCAL.items() for name in names}
    files = [path for place in (home, bundles) for path in place.rglob("*") if path.is_file()]
    assert all(holding(path.read_bytes()) for path in local), "the search below can find what there is"
    told = {
        "requests": json.dumps(server.requests, ensure_ascii=False).encode(),
        "screen": (process.stdout + process.stderr + project("privacy", "log", "--home", "home")).encode(),
        "names": "\n".join(map(str, files)).encode(),
    }
    told |= {str(path): path.read_bytes() for path in files if path.resolve() not in {one.resolve() for one in local}}
    leaks = {where: found for where, content in told.items() if (found := holding(content))}
    assert leaks == {}
    assert {"report.html", "run.log", "endpoints.db", EGRESS, "MODEL_CARD.md"} <= {Path(where).name for where in told}


def holding(content: bytes) -> list[str]:
    """The secrets in a file, as they are or as JSON or HTML would write them."""
    forms = {value: {value, json.dumps(value)[1:-1], value.replace("&", "&amp;")} for value in SECRETS.values()}
    return [value for value, written in forms.items() if any(form.encode() in content for form in written)]
