"""A judge and an evaluated endpoint on another machine see placeholders."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from endpoint_server import Server
from judge_server import JudgeServer, honest

from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.evaluate.asking import Asking
from slmops.evaluate.given import read_privacy
from slmops.evaluate.side_by_side import evaluate
from slmops.evaluate.stage import JudgeAnswers, JudgeAnswersSettings
from slmops.evaluate.subjects import Endpoint
from slmops.pipeline.stage import Context
from slmops.privacy.audit import EGRESS, read_log
from slmops.progress import Silent
from slmops.recipe.evaluate import JudgeSettings, Running
from slmops.recipe.privacy import PrivacySettings
from slmops.report.failures import side_by_side
from slmops.tasks import Generation
from tests.privacy.canaries import CANARIES

REMOTE = PrivacySettings(loopback="remote")
TASK = Generation(None, 60)
ROWS = [
    {"id": f"r{i}", "input": f"Ask about\n{value}\n!", "output": f"Told about {value}."}
    for i, value in enumerate([*CANARIES.values()] * 2)
]


def canaries_in(*contents: bytes | str) -> list[str]:
    whole = "".join(c if isinstance(c, str) else c.decode("utf-8", "replace") for c in contents)
    return [value for value in CANARIES.values() if value in whole or json.dumps(value)[1:-1] in whole]


@pytest.mark.parametrize("mode", ["pairwise", "rubric"])
def test_a_judge_sees_placeholders(tmp_path, mode):
    (tmp_path / "task.json").write_text(json.dumps(TASK.describe()))
    write_jsonl(tmp_path / "test.jsonl", ROWS)
    for side, said in (("ours", "{}"), ("theirs", "No: {}")):
        (tmp_path / side).mkdir()
        lines = [{"id": row["id"], "text": said.format(row["output"])} for row in ROWS]
        write_jsonl(tmp_path / side / "predictions.jsonl", lines)
    for folder in ("out", "work", "kept"):
        (tmp_path / folder).mkdir()
    inputs = {"data": tmp_path, "ours": tmp_path / "ours", "theirs": tmp_path / "theirs"}
    context = Context(tmp_path / "out", tmp_path / "work", 7, tmp_path / "kept")
    with JudgeServer(honest) as server:
        wanted = JudgeSettings(model="big", base_url=server.url, mode=mode)
        stage = JudgeAnswersSettings(judge=wanted, engine="", threads=1, privacy=REMOTE)
        JudgeAnswers().run(inputs, stage, context)
    made = [path for folder in ("out", "work", "kept") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert not canaries_in(json.dumps(server.requests, ensure_ascii=False), *(path.read_bytes() for path in made))
    found = json.loads((tmp_path / "out" / "judged.json").read_text())
    assert found["readable"] == len(ROWS), "and judges as well as before"
    given = json.loads(server.requests[0]["messages"][-1]["content"])
    name = given["reference"].removeprefix("Told about ").removesuffix(".")
    assert given["request"] == f"Ask about\n{name}\n!", "one value, one placeholder"
    lines, _ = read_log(tmp_path / "kept" / EGRESS)
    assert len(lines) == len(server.requests)
    assert {line["who"] for line in lines} == {"judge"}


def test_an_evaluated_endpoint_sees_placeholders_and_is_judged_by_its_answers_with_the_values(tmp_path):
    def answers(_number, text, _handler):
        return f"Told about {text.split()[2]}."

    seen: list[str] = []

    def behave(number, text, handler):
        seen.append(text)
        return answers(number, text, handler)

    with Server(behave).running() as server:
        url, _, model = server.address.partition("#")
        outcome = evaluate(
            [Endpoint("big", url, model)],
            TASK,
            ROWS,
            [],
            Asking(1, 2, 4, 1, 5.0, REMOTE),
            running=Running(),
            prices={},
            home=tmp_path,
            seed=7,
            progress=Silent(),
        )
    assert [answer["text"] for answer in outcome.answers["big"]] == [row["output"] for row in ROWS]
    assert len(seen) == len(CANARIES), "two rows of one text are one question"
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not canaries_in(*seen, *(path.read_bytes() for path in kept), *map(str, kept))
    with sqlite3.connect(tmp_path / "answers.db") as db:
        assert db.execute("SELECT COUNT(*) FROM answers").fetchone() == (len(CANARIES),)
    assert len(read_log(tmp_path / "kept" / EGRESS)[0]) == len(CANARIES)


def test_local_only_asks_nobody_elsewhere(tmp_path):
    asking = Asking(1, 2, 4, 1, 5.0, REMOTE.model_copy(update={"egress": "local-only"}))
    with Server(lambda _n, text, _h: text).running() as server:
        url, _, model = server.address.partition("#")
        subjects = [Endpoint("big", url, model)]
        more = {"running": Running(), "prices": {}, "home": tmp_path, "seed": 7, "progress": Silent()}
        with pytest.raises(BadInput, match="lets no text leave this machine"):
            evaluate(subjects, TASK, ROWS, [], asking, **more)
    assert server.asked.total() == 0


def test_a_recipe_says_what_holds_without_one(tmp_path):
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "recipe.yaml").write_text(
        "name: a\ntask: {kind: generation}\ndata: {train: train.jsonl, test: test.jsonl}\n"
        "teachers: [{model: 'wheel:none'}]\nprivacy: {redact: [email]}\n"
    )
    assert read_privacy(tmp_path / "recipe.yaml", True).redact == ["email"]
    assert read_privacy(None, True) == PrivacySettings()
    assert read_privacy(None, False).redact == []
    with pytest.raises(BadInput, match="exclude each other"):
        read_privacy(tmp_path / "recipe.yaml", False)


def test_examples_of_a_report_are_shown_without_what_is_private():
    from slmops.privacy.redaction import redactor

    finder = redactor(PrivacySettings())
    # So long that a value stands where the text is cut short.
    rows = [
        {**row, "input": "x" * length + " " + row["input"]} for row, length in zip(ROWS, range(250, 300), strict=False)
    ]
    texts = {"shipped": [f"no {row['output']}" for row in rows]}
    show = lambda given: finder.redact(given).texts  # noqa: E731
    groups = side_by_side(TASK, rows, texts, figure="exact_match", subject="shipped", reference=None, show=show)
    assert groups[0].examples
    assert not canaries_in(repr(groups))
    assert canaries_in(repr(side_by_side(TASK, rows, texts, figure="exact_match", subject="shipped", reference=None)))
