"""A judge's opinions: counted when both orders agree, told with how far the judge agrees with itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from judge_server import JudgeServer, first_always, honest, nonsense

from slmops.data.read import write_jsonl
from slmops.engines import Sampling
from slmops.evaluate.ask import AskEndpoint, AskLocal
from slmops.evaluate.evidence import figures
from slmops.evaluate.gates import judge_gates
from slmops.evaluate.judge import Answered, drawn, judge
from slmops.evaluate.judge_prompts import pairwise, read_choice, read_grades, rubric
from slmops.evaluate.significance import wilson
from slmops.evaluate.stage import JudgeAnswers, JudgeAnswersSettings
from slmops.pipeline.stage import Context
from slmops.recipe.evaluate import Gate, JudgeSettings
from slmops.tasks import Message

relaxed = checked(deadline=None)
CRITERIA = {"correct": "It is right.", "clear": "It is easy to read."}


def rows(wins: int, losses: int, ties: int = 0, same: int = 0) -> list[Answered]:
    """Rows of which ours is the reference, theirs is, neither is, or both answers are equal."""
    answers = (
        [("good", "bad")] * wins + [("bad", "good")] * losses + [("bad", "worse")] * ties + [("bad", "bad")] * same
    )
    return [Answered(f"r{i}", f"question {i}", "good", *pair) for i, pair in enumerate(answers)]


def settings(**changes: Any) -> JudgeSettings:
    return JudgeSettings(model="big", base_url="http://127.0.0.1:9/v1", **changes)


def judged(server: JudgeServer, answered: Sequence[Answered], **changes: Any) -> dict[str, Any]:
    with server:
        return judge(AskEndpoint(server.url, "big", None, 64), answered, settings(**changes), seed=7)


def test_an_honest_judge_counts_wins_losses_and_ties():
    server = JudgeServer(honest)
    found = judged(server, rows(wins=20, losses=10, ties=6, same=4))
    assert found["figures"] == {"win_rate": 20 / 40, "loss_rate": 10 / 40, "tie_rate": 10 / 40}
    assert found["interval"]["win_rate"] == list(wilson(20, 40))
    assert found["agreement"] == {"how": "both orders", "share": 1.0, "rows": 36, "interval": list(wilson(36, 36))}
    assert found["first_chosen"] == 0.5
    assert (found["reliable"], found["readable"], found["unreadable"]) == (True, 40, 0)
    assert len(server.requests) == 2 * 36, "nobody is asked about equal answers"
    assert {request["temperature"] for request in server.requests} == {0.0}


def test_a_judge_that_likes_what_stands_first_is_found_out():
    found = judged(JudgeServer(first_always), rows(wins=20, losses=20))
    assert found["figures"] == {"win_rate": 0.0, "loss_rate": 0.0, "tie_rate": 1.0}
    assert (found["agreement"]["share"], found["first_chosen"]) == (0.0, 1.0)
    assert found["agreement"]["interval"] == list(wilson(0, 40))
    assert not found["reliable"]
    assert found["why"] == "the judge agrees with itself in 0% of cases; 60% are needed"
    for gate in (Gate(max=0.5), Gate(min=0.0)):
        (verdict,) = judge_gates(evidence(found), {"judged.loss_rate": [gate]})
        assert verdict["state"] == "not enough evidence"


def test_nonsense_is_no_verdict():
    found = judged(JudgeServer(nonsense), rows(wins=40, losses=0))
    assert (found["readable"], found["unreadable"]) == (0, 40)
    assert set(found["figures"].values()) == {None}
    assert (found["reliable"], found["why"]) == (False, "none of 40 verdicts can be read")
    (verdict,) = judge_gates(evidence(found), {"judged.win_rate": [Gate(min=0.0)]})
    assert verdict["state"] == "not enough evidence"


def sometimes_nonsense(share: int) -> Any:
    """Nonsense about every `share`-th question, in one of the two orders."""

    def say(given: dict[str, Any]) -> str:
        number = int(given["request"].split()[1])
        return "banana" if number % share == 0 and given["answer_A"] == "bad" else honest(given)

    return say


@pytest.mark.parametrize(("share", "unreadable", "reliable"), [(20, 2, True), (4, 10, False)])
def test_some_nonsense_is_left_out_and_too_much_of_it_spoils_everything(share, unreadable, reliable):
    found = judged(JudgeServer(sometimes_nonsense(share)), rows(wins=40, losses=0))
    assert (found["unreadable"], found["reliable"]) == (unreadable, reliable)
    assert found["figures"]["win_rate"] == 1.0, "of those that can be read"
    assert found["readable"] == 40 - unreadable
    state = judge_gates(evidence(found), {"judged.win_rate": [Gate(min=0.9)]})[0]["state"]
    assert state == ("pass" if reliable else "not enough evidence")


def evidence(found: dict[str, Any]) -> dict[str, Any]:
    return {"n_test": 0, "models": {"shipped": {}}, "judged": found}


def test_grades_of_both_models_and_how_often_they_come_out_alike():
    server = JudgeServer(honest)
    found = judged(server, rows(wins=30, losses=10), mode="rubric", rubric=CRITERIA)
    ours, theirs = (30 * 5 + 10 * 2) / 40, (10 * 5 + 30 * 2) / 40
    assert found["figures"] == pytest.approx({"correct": ours, "clear": ours, "overall": ours})
    assert found["theirs"]["overall"] == pytest.approx(theirs)
    assert found["difference"]["correct"]["value"] == pytest.approx(ours - theirs)
    low, high = found["difference"]["correct"]["interval"]
    assert low < ours - theirs < high
    assert found["agreement"] == {"how": "graded twice", "share": 1.0, "rows": 40, "interval": [1.0, 1.0]}
    seeds = [request.get("seed") for request in server.requests]
    assert (seeds.count(None), seeds.count(8)) == (80, 40)
    assert {request["temperature"] for request in server.requests if "seed" in request} == {0.7}
    figure = figures(evidence(found))["judged.overall"]
    assert (figure.value, figure.rows, figure.scale) == (ours, 40, 4.0)


def moody(given: dict[str, Any]) -> str:
    """Grades that change from one request to the next."""
    moody.asked = getattr(moody, "asked", 0) + 1
    return json.dumps(dict.fromkeys(given["criteria"], 1 + moody.asked % 5))


def test_a_judge_that_grades_otherwise_each_time_is_found_out():
    found = judged(JudgeServer(moody), rows(wins=41, losses=0), mode="rubric", rubric=CRITERIA)
    assert found["agreement"]["share"] < 0.6
    assert not found["reliable"]


def test_no_rows_are_no_evidence():
    found = judged(JudgeServer(honest), [])
    assert (found["reliable"], found["readable"]) == (False, 0)
    assert set(found["figures"].values()) == {None}


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ('{"better": "A"}', "A"),
        ('Let me see. {"note": 1} {"better": "b"}', "B"),
        ('<think>{"better": "A"}? No.</think>{"better": "tie"}', "tie"),
        ('{"better": "A"} or rather {"better": "B"}', None),
        ('{"better": "A"} {"better": "neither"}', None),
        ('{"better": ["A"]}', None),
        ('{"best": "A"}', None),
        ("A", "A"),
        (' "b". ', "B"),
        ("**Tie**", "tie"),
        ("A is better", None),
        ("AB", None),
        ("", None),
        ("{" * 5000, None),
    ],
)
def test_what_counts_as_a_choice(text, choice):
    assert read_choice(text) == choice


@pytest.mark.parametrize(
    ("text", "grades"),
    [
        ('{"correct": 4, "clear": 5}', {"correct": 4, "clear": 5}),
        ('Well: {"clear": 1, "correct": 1, "extra": "x"}.', {"correct": 1, "clear": 1}),
        ('{"correct": 4}', None),
        ('{"correct": 4, "clear": 6}', None),
        ('{"correct": 4, "clear": 0}', None),
        ('{"correct": 4.5, "clear": 5}', None),
        ('{"correct": true, "clear": 5}', None),
        ('{"correct": "4", "clear": 5}', None),
        ('{"correct": 4, "clear": 5} {"correct": 1, "clear": 1}', None),
        ("5 5", None),
    ],
)
def test_what_counts_as_grades(text, grades):
    assert read_grades(text, CRITERIA) == grades


@relaxed
@given(st.text())
def test_reading_a_judge_never_fails(text):
    assert read_choice(text) in ("A", "B", "tie", None)
    assert read_grades(text, CRITERIA) is None or "correct" in text


@relaxed
@given(st.text(), st.text(), st.text())
def test_no_answer_can_end_its_own_quotation(request_text, first, second):
    content = pairwise(request_text, "good", first, second)[-1]["content"]
    assert json.loads(content) == {
        "request": request_text,
        "reference": "good",
        "answer_A": first,
        "answer_B": second,
    }
    assert json.loads(rubric(request_text, "good", first, CRITERIA)[-1]["content"])["answer"] == first


def test_the_same_rows_are_drawn_for_a_seed_and_stay_in_order():
    many = rows(wins=200, losses=0)
    some = drawn(many, 50, seed=7)
    assert some == drawn(many, 50, seed=7) != drawn(many, 50, seed=8)
    assert some == [row for row in many if row in some]
    assert len(some) == 50
    assert drawn(many, 500, seed=7) == many


class Scripted:
    """A judge without a wire: the protocol is all that `judge` needs."""

    def ask(self, prompts: Sequence[list[Message]], *, seed: int | None = None) -> list[str]:
        assert seed is None
        return [honest(json.loads(messages[-1]["content"])) for messages in prompts]


@relaxed
@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_turning_the_models_round_turns_the_verdict_round(wins, losses, ties, same):
    answered = rows(wins, losses, ties, same)
    turned = [row._replace(ours=row.theirs, theirs=row.ours) for row in answered]
    here, there = (judge(Scripted(), given, settings(), seed=7)["figures"] for given in (answered, turned))
    assert (here["win_rate"], here["loss_rate"]) == (there["loss_rate"], there["win_rate"])
    assert here["tie_rate"] == there["tie_rate"]
    if answered:
        assert sum(here.values()) == pytest.approx(1)


@pytest.fixture
def scored_rows(tmp_path, task, rows):
    """What the stage reads: the first thirty answers are ours alone, the others theirs alone."""
    write_jsonl(tmp_path / "test.jsonl", rows)
    (tmp_path / "task.json").write_text(json.dumps(task.describe()))
    sides = {}
    for side, right in (("ours", range(30)), ("theirs", range(30, 40))):
        sides[side] = tmp_path / side
        sides[side].mkdir()
        texts = [task.write(row["output"]) if i in right else "{}" for i, row in enumerate(rows)]
        write_jsonl(
            sides[side] / "predictions.jsonl",
            ({"id": row["id"], "text": text} for row, text in zip(rows, texts, strict=True)),
        )
    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()
    return {"data": tmp_path, **sides}, Context(out=tmp_path / "out", work=tmp_path / "work", seed=7)


def test_the_stage_asks_an_endpoint_and_writes_a_file_of_its_own(scored_rows):
    inputs, context = scored_rows
    with JudgeServer(honest) as server:
        wanted = JudgeSettings(model="big", base_url=server.url, rows=36)
        metrics = JudgeAnswers().run(inputs, JudgeAnswersSettings(judge=wanted, engine="", threads=1), context)
    found = json.loads((context.out / "judged.json").read_text())
    wins = sum(int(verdict["id"][1:]) < 30 for verdict in found["verdicts"])
    assert metrics["win_rate"] == found["figures"]["win_rate"] == wins / 36
    assert metrics["reliable"] == "true"
    assert (found["judge"], found["where"], found["rows"]) == ("big", "an endpoint", 36)
    assert server.url not in json.dumps(found), "where an endpoint is, is nobody's business"


@pytest.mark.parametrize("mode", ["pairwise", "rubric"])
def test_the_stage_asks_a_model_on_this_machine(scored_rows, tiny_onnx, tmp_path, mode):
    """The tiny model knows four tickets and nothing of judging: all it says is unreadable, and is counted so."""
    inputs, context = scored_rows
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "model").symlink_to(tiny_onnx)
    wanted = JudgeSettings(model="tiny", mode=mode, rows=4, max_answer_tokens=8)
    stage = JudgeAnswersSettings(judge=wanted, engine="onnxruntime-genai", threads=1)
    metrics = JudgeAnswers().run({**inputs, "model": tmp_path / "judge"}, stage, context)
    assert metrics == {"unreadable": 4, "reliable": "false"}
    assert json.loads((context.out / "judged.json").read_text())["where"] == "this machine"


def test_a_local_model_answers_what_fits(tiny, tiny_onnx):
    asked = AskLocal.load("onnxruntime-genai", tiny_onnx, max_tokens=60, threads=1)
    texts = list(tiny.pairs)
    prompts = [[{"role": "user", "content": text}] for text in [*texts, "too long " * 200]]
    assert asked.ask(prompts) == [*tiny.pairs.values(), ""]
    assert asked.ask(prompts[-1:]) == [""]


def test_a_local_model_draws_only_where_a_seed_is_given(tiny, tiny_onnx):
    asked = AskLocal.load("onnxruntime-genai", tiny_onnx, max_tokens=60, threads=1)
    engine, seen = asked.engine, []

    class Watched:
        info = engine.info

        @staticmethod
        def generate(prompts: Any, sampling: Sampling) -> Any:
            seen.append((sampling.temperature, sampling.seed))
            return engine.generate(prompts, sampling)

    watched = AskLocal(Watched(), asked.tokenizer, 60)  # type: ignore[arg-type]
    prompt = [[{"role": "user", "content": text}] for text in tiny.pairs]
    assert watched.ask(prompt) == watched.ask(prompt, seed=3) == list(tiny.pairs.values()), "it knows nothing else"
    assert seen == [(0.0, 0), (0.7, 3)]
