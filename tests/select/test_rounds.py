"""A pool that is bought in rounds, through the pipeline: a real endpoint on loopback, real students of a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import read_jsonl
from slmops.errors import BudgetReached
from slmops.models.source import save_model
from slmops.pipeline.history import History
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.run import RunResult, forecast, run_graph
from slmops.recipe import Recipe
from slmops.teach.answers import load_answers
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.families import make
from tests.tokenizer_kinds import tokenizer

RECIPE = """
name: chosen
task: {kind: classification, labels: [refund, thanks], max_answer_tokens: 16}
data: {train: train.jsonl, pool: pool.jsonl, test: test.jsonl, split: {validation: 0.5}}
teachers: [{model: ./llama, fit: null}]
teach: {engine: transformers, top_logits: 4, select: {first: 4, rows: 4, rounds: 1, patience: 9, min_gain: 0.0}}
student: {carve: {layers: 1, choose: first, vocabulary: keep}}
train: {epochs: 1, learning_rate: 3.0e-3, batch_tokens: 512, precision: fp32, baseline: false}
evaluate: {latency_requests: 1, threads: 1}
"""
REMOTE = "teachers=[{{kind: endpoint, base_url: '{}', model: big, price: {{input_usd: 2, output_usd: 10}}}}]"
OF_REMOTE = ("teach.engine=onnxruntime-genai", "teach.top_logits=16", "student.model=./llama")
HERE = ("teachers.0.fit={epochs: 40, learning_rate: 5.0e-3, precision: fp32}",)
ASKED = {"refund": "please refund order {}, it is broken", "thanks": "hello, lamp {} is lovely"}
POOL = 16


def knows(_number: int, text: str) -> Act:
    return Act(text="refund" if "refund" in text else "thanks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose student can be made in a second."""
    folder = tmp_path_factory.mktemp("project")
    for side, rows in (("train", 8), ("pool", POOL), ("test", 4)):
        # Numbers tell texts apart, so no two are alike.
        texts = [(label, ASKED[label].format(f"{side}-{i}")) for i, label in enumerate([*ASKED] * (rows // 2))]
        told = ({"input": text} | ({} if side == "pool" else {"output": label}) for label, text in texts)
        (folder / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    words = tokenizer("bytes")
    (end,) = words.end_ids
    save_model(make("llama", vocab_size=words.size, eos_token_id=end, max_position_embeddings=128), folder / "llama")
    words.save(folder / "llama")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


Bought = tuple[RunResult, dict[str, Any], Path]


@pytest.fixture
def buy(folder: Path) -> Callable[..., Bought]:
    """Makes the answers of the recipe with these overrides: the run, the curve, and the folder of both."""

    def run(home: Path, *overrides: str) -> Bought:
        recipe = Recipe.load(folder / "recipe.yaml", overrides)
        nodes = nodes_for(recipe)
        until = next(i for i, node in enumerate(nodes) if node.id == "teach")
        made = run_graph(nodes[: until + 1], name="chosen", resolved_recipe=recipe.resolved(), seed=7, home=home)
        path = made.artifacts["teach"].path
        return made, json.loads((path / "curve.json").read_text()), path

    return run


def of(url: str, *overrides: str) -> tuple[str, ...]:
    return (REMOTE.format(url), *OF_REMOTE, *overrides)


def test_rows_are_bought_in_rounds_and_no_round_is_made_twice(buy, folder, tmp_path):
    def steps(*beginnings: str) -> dict[str, bool]:
        """Of the last run, whether those that begin so were there before."""
        (run, *_) = History(tmp_path).runs()
        return {step.node: step.cached for step in run.steps if step.node.startswith(beginnings)}

    with TeacherServer(knows) as server:
        (told,) = forecast(Recipe.load(folder / "recipe.yaml", of(server.url)), home=tmp_path).each
        assert (told.rows, told.questions) == (POOL, 8)
        made, curve, path = buy(tmp_path, *of(server.url))
        assert server.asked.total() == 8
        assert told.most.pico >= server.charged
        buy(tmp_path, *of(server.url, "teach.select.rounds=2"))
        again = {"doubts:1": True, "doubts:2": False, "student:0": True, "student:1": True, "student:2": False}
        assert steps("doubts", "student:") == again | {"student:base": True}
        assert server.asked.total() == 12, "a further round buys its own rows and no other"
        _, by_chance, _ = buy(tmp_path, *of(server.url, "teach.select.by=random"))
        assert steps("doubts", "student:0", "student:1") == {"student:0": True, "student:1": False}
    assert set(server.asked.values()) == {1}
    assert [point["asked"] for point in curve["points"]] == [4, 8]
    assert (curve["ended"], curve["unbought"], curve["pool"]) == ("rounds", 8, POOL)
    assert (curve["by"], by_chance["by"]) == ("uncertainty", "random")
    answers = load_answers(path)
    assert len({answer.id for answer in answers}) == 8
    assert all(answer.text == knows(0, answer.input).text for answer in answers)
    figures = made.artifacts["teach"].metrics
    assert (figures["rows"], figures["unbought"], figures["requests"]) == (8, 8, 8)
    assert figures["exact_match_8"] == curve["points"][-1]["value"]


def test_a_budget_ends_it_with_what_it_bought_and_a_larger_one_goes_on(buy, tmp_path):
    with TeacherServer(knows) as server:
        made, curve, path = buy(tmp_path, *of(server.url, "teach.budget.requests=6"))
        assert server.asked.total() == 6
        assert (curve["ended"], curve["unbought"]) == ("budget", POOL - 6)
        assert [point["asked"] for point in curve["points"]] == [4, 6]
        assert len(load_answers(path)) == 6
        assert made.artifacts["teach"].metrics["requests"] == 6
        more = ("teach.budget.requests=8", "teach.select.rounds=2")
        _, curve, path = buy(tmp_path, *of(server.url, *more))
        assert [point["asked"] for point in curve["points"]] == [4, 8], "the third round could buy nothing"
        assert curve["ended"] == "budget"
    assert server.asked.total() == 8
    assert set(server.asked.values()) == {1}


def test_a_budget_without_room_for_a_single_answer_ends_the_run(buy, tmp_path):
    with TeacherServer(knows) as server, pytest.raises(BudgetReached):
        buy(tmp_path, *of(server.url, "teach.budget.tokens=10"))
    assert server.asked.total() == 0


def test_a_flat_curve_and_an_empty_pool_end_it(buy, tmp_path):
    with TeacherServer(knows) as server:
        # No gain can be so large, and after one round it is missing.
        flat = ("teach.select.patience=1", "teach.select.min_gain=0.99", "teach.select.rounds=9")
        _, curve, _ = buy(tmp_path, *of(server.url, *flat))
        assert (curve["ended"], len(curve["points"])) == ("flat", 2)
        _, curve, path = buy(tmp_path, *of(server.url, "teach.select.first=40"))
    assert (curve["ended"], curve["unbought"], len(curve["points"])) == ("pool", 0, 1)
    assert len(load_answers(path)) == POOL


def test_a_teacher_that_runs_here_is_asked_for_new_rows_alone(buy, tmp_path):
    _, curve, path = buy(tmp_path, *HERE)
    assert [point["asked"] for point in curve["points"]] == [4, 8]
    answers = load_answers(path)
    assert answers
    assert len({answer.id for answer in answers}) + len(read_jsonl(path / "dropped.jsonl")) == 8
    assert all(answer.top_ids.shape[1] == 4 for answer in answers), "its probabilities are kept"
    steps = {step.node: step.metrics for step in History(tmp_path).runs()[0].steps}
    assert [sum(steps[f"taught:{n}"][what] for what in ("rows", "dropped")) for n in (1, 2)] == [4, 4]
