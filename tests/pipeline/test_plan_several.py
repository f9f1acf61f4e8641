"""Several teachers, some of them behind endpoints: from the recipe to one set of answers, and what that may cost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmops.bundle import write_bundle
from slmops.data.read import read_jsonl
from slmops.endpoints import retry
from slmops.errors import BadInput, BudgetReached
from slmops.models.tokenizer import Tokenizer
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.plan.preview import destinations
from slmops.pipeline.run import RunResult, forecast, run_graph
from slmops.pipeline.stage import Node
from slmops.recipe import Recipe
from slmops.teach.answers import load_answers
from slmops.teach.paying import cost_in
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.tiny_task import SCHEMA, TASK

RECIPE = """
name: several
task: {kind: classification, labels: [refund, thanks, other], max_answer_tokens: 8}
data: {train: train.jsonl, test: test.jsonl, pool: pool.jsonl}
teachers: []
student: {model: ./model}
"""
ROWS = 10


class Project:
    """A folder with a recipe whose teachers are given, and runs as far as `curate`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / ".slmops"
        for side in ("train", "test", "pool"):
            self.rows(side, ROWS)

    def rows(self, side: str, count: int) -> None:
        rows: list[dict[str, Any]] = [{"input": f"{side} text {i}"} for i in range(count)]
        for i, row in enumerate(rows):
            row |= {"source": ("chat", "mail")[i % 2]} if side == "pool" else {"output": ("thanks", "refund")[i % 2]}
        (self.folder / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def load(self, teachers: list[dict[str, Any]], *overrides: str) -> Recipe:
        (self.folder / "recipe.yaml").write_text(RECIPE)
        told = json.dumps(teachers)
        return Recipe.load(self.folder / "recipe.yaml", (f"teachers={told}", *overrides))

    def run(self, recipe: Recipe) -> RunResult:
        nodes = nodes_for(recipe)
        last = next(i for i, node in enumerate(nodes) if node.id == "curate")
        return run_graph(nodes[: last + 1], name="several", resolved_recipe={}, seed=recipe.seed, home=self.home)


@pytest.fixture
def project(tmp_path, tiny, monkeypatch) -> Project:
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.01)
    (tmp_path / "model").symlink_to(tiny.folder)
    return Project(tmp_path)


def endpoint(name: str, url: str = "http://127.0.0.1:9/v1", **more: Any) -> dict[str, Any]:
    price = {"input_usd": 2.0, "output_usd": 10.0}
    return {"name": name, "kind": "endpoint", "base_url": url, "model": f"{name}-1", "price": price, **more}


def says(text: str | Callable[[str], str]) -> Callable[[int, str], Act]:
    return lambda _number, asked: Act(text=text if isinstance(text, str) else text(asked))


def texts(made: RunResult, node: str = "curate") -> dict[str, str]:
    return {answer.input: answer.text for answer in load_answers(made.artifacts[node].path)}


def graph(recipe: Recipe) -> dict[str, Node]:
    return {node.id: node for node in nodes_for(recipe)}


def odd(text: str) -> str:
    return "refund" if int(text.split()[-1]) % 2 else "thanks"


def test_the_heavier_of_two_endpoints_is_learned_and_their_costs_are_one(project):
    with TeacherServer(says(odd)) as one, TeacherServer(says("thanks")) as two:
        recipe = project.load([endpoint("one", one.url), endpoint("two", two.url)], "teach.combine={weights: {two: 2}}")
        told = forecast(recipe, home=project.home)
        made = project.run(recipe)
    assert set(texts(made).values()) == {"thanks"}
    assert one.asked.total() == two.asked.total() == ROWS
    assert made.artifacts["teach"].metrics["rows_of_2"] == ROWS
    assert made.artifacts["teach:1"].metrics["usd"] == pytest.approx(one.charged / 1e12), "its own alone"
    charged = (one.charged + two.charged) / 1e12
    assert cost_in(made.artifacts["teach"].path) == {
        "requests": 2 * ROWS,
        "bought_tokens": 2 * ROWS * 43,
        "usd": pytest.approx(charged),
    }
    card = json.loads((made.artifacts["curate"].path / "card.json").read_text())
    assert card["cost"]["usd"] == pytest.approx(charged)
    assert card["agreement"] == {"mean": pytest.approx((1 + 2 / 3) / 2), "unanimous": 0.5}
    first, second, whole = str(told).splitlines()
    assert first.startswith("one: one-1 at 127.0.0.1")
    assert second.startswith("two: two-1 at 127.0.0.1")
    assert whole.startswith("together: at most ")
    assert told.most.tokens == sum(part.most.tokens for part in told.each)
    assert charged <= told.most.usd
    described = told.describe()
    assert (described["questions"], described["teachers"]["two"]["questions"]) == (2 * ROWS, ROWS)
    assert [who for who, _, _ in destinations(recipe)] == ["teacher one", "teacher two"]


def test_one_cap_holds_for_all_whoever_asks(project):
    with TeacherServer(says("thanks")) as one, TeacherServer(says("thanks")) as two:
        teachers = [endpoint("one", one.url), endpoint("two", two.url)]
        with pytest.raises(BudgetReached):
            project.run(project.load(teachers, f"teach.budget.requests={ROWS + 4}"))
        assert (one.asked.total(), two.asked.total()) == (ROWS, 4)
        project.run(project.load(teachers, f"teach.budget.requests={2 * ROWS}"))
        assert set(one.asked.values()) == set(two.asked.values()) == {1}
        assert two.asked.total() == ROWS
        # What the second was asked counts when the first has a row more to answer.
        project.rows("pool", ROWS + 1)
        with pytest.raises(BudgetReached):
            project.run(project.load(teachers, f"teach.budget.requests={2 * ROWS}"))
    assert (one.asked.total(), two.asked.total()) == (ROWS, ROWS)


def test_endpoints_answer_the_rows_that_are_routed_to_them(project):
    routed = "teach.combine={how: routed, by: source, routes: {mail: one, chat: two}}"
    with TeacherServer(says("refund")) as one, TeacherServer(says("other")) as two:
        recipe = project.load([endpoint("one", one.url), endpoint("two", two.url)], routed)
        assert [part.questions for part in forecast(recipe, home=project.home).each] == [ROWS // 2, ROWS // 2]
        made = project.run(recipe)
        by_label = "teach.combine={how: routed, by: label, routes: {refund: two}, otherwise: one}"
        again = project.run(project.load([endpoint("one", one.url), endpoint("two", two.url)], by_label))
    assert texts(made) == {f"pool text {i}": "refund" if i % 2 else "other" for i in range(ROWS)}
    assert set(texts(again).values()) == {"other"}, "the first says refund, so the second is asked"
    assert set(one.asked.values()) == set(two.asked.values()) == {1}


def test_a_teacher_that_runs_here_votes_beside_an_endpoint_by_its_words(project):
    here = {"name": "here", "model": "./model", "fit": None}
    with TeacherServer(says("thanks")) as server:
        two = [here, endpoint("far", server.url)]
        recipe = project.load(two, "teach.engine=transformers", FREE[0], "teach.combine={weights: {far: 2}}")
        made = project.run(recipe)
    assert set(texts(made).values()) == {"thanks"}
    card = json.loads((made.artifacts["curate"].path / "card.json").read_text())
    assert card["agreement"]["mean"] == pytest.approx(2 / 3), "the tiny model says other things"
    assert made.artifacts["teach:1"].metrics["rows"] == made.artifacts["teach:2"].metrics["rows"] == ROWS
    nodes = graph(recipe)
    assert nodes["teach:1"].inputs == {"answers": "teach:1:own", "writer": "base", "model": "student:base"}
    assert nodes["teach:1:own"].settings.top_logits == 0
    assert nodes["student:carved"].inputs["model"] == "student:base"
    assert not {"teachers:check", "score:teacher", "teacher:same", "student:pair"} & nodes.keys()
    with pytest.raises(BadInput, match="needs more of the teacher than its words"):
        nodes_for(project.load([here, endpoint("far")], "train.objective={kind: forward_kl}"))


def by_seed(server: TeacherServer) -> Callable[[int, str], Act]:
    """Of three draws of a row two say what `odd` says; of rows of the first digits all three say another thing."""

    def act(number: int, text: str) -> Act:
        draw = server.requests[number - 1]["seed"] - 5
        row = int(text.split()[-1])
        return Act(text=["refund", "thanks", "other"][draw] if row < 2 else "no label" if draw == 0 else odd(text))

    return act


def test_the_draws_of_one_teacher_vote_and_are_bought_once(project):
    with TeacherServer() as server:
        server.behave = by_seed(server)
        # One at a time, so that a request is the last one that came.
        drawn = endpoint("big", server.url, n=3, seed=5, temperature=0.7, concurrency=1)
        recipe = project.load([drawn], "teach.curate.agreement=0.5")
        assert "30 of 30 answers, 3 to a row, to ask" in str(forecast(recipe, home=project.home))
        made = project.run(recipe)
        assert server.asked.total() == 3 * ROWS
        assert sorted(request["seed"] for request in server.requests[:3]) == [5, 6, 7]
        fewer = project.run(project.load([drawn | {"n": 2}]))
        assert forecast(project.load([drawn | {"n": 2}]), home=project.home) is None
    assert server.asked.total() == 3 * ROWS, "two of the three draws are two draws"
    assert texts(made) == {f"pool text {i}": odd(f"text {i}") for i in range(2, ROWS)}
    dropped = read_jsonl(made.artifacts["curate"].path / "dropped.jsonl")
    assert [row["reason"] for row in dropped] == ["inconsistent", "inconsistent"]
    card = json.loads((made.artifacts["curate"].path / "card.json").read_text())
    assert card["agreement"] == {"mean": pytest.approx(2 / 3), "unanimous": 0.0}
    assert fewer.artifacts["teach"].metrics["rows"] == ROWS


def test_draws_without_a_seed_are_apart_and_weigh_as_much_as_one_teacher(project):
    def never_the_same(number: int, _text: str) -> Act:
        return Act(text=("refund", "thanks")[number % 2])

    with TeacherServer(never_the_same) as many, TeacherServer(says("other")) as one:
        many_draws = endpoint("many", many.url, n=4, temperature=1.0, concurrency=1)
        made = project.run(project.load([many_draws, endpoint("one", one.url)]))
    assert many.asked.total() == 4 * ROWS
    assert "seed" not in many.requests[0]
    assert set(texts(made).values()) == {"other"}, "1 against 2/4"
    assert len({headers["Idempotency-Key"] for headers in many.headers}) == 4 * ROWS


def judge(answers: list[list[str]]) -> Callable[[int, str], Act]:
    """Finds the answer best that ends in `!`; of two rows it says nothing useful. Keeps what it was shown."""

    def act(_number: int, text: str) -> Act:
        shown = re.findall(r"Answer \d+:\n(.*)", text)
        answers.append(shown)
        if "pool text 3" in text:
            return Act(text="Both are fine: 1 and 2.")
        if "pool text 4" in text:
            return Act(text="7")
        best = next(i for i, one in enumerate(shown, 1) if one.endswith("!"))
        return Act(text=f"The best is [{best}].")

    return act


FREE = ("task={kind: generation, max_answer_tokens: 20}", "teach.combine={how: judged, judge: wise}", "seed=3")


def test_the_best_answer_by_a_judge_is_learned_and_the_cap_holds_for_it_too(project):
    def plain(text: str) -> str:
        return "the same" if "text 0" in text else f"so, {text}"

    def keen(text: str) -> str:
        return "the same" if "text 0" in text else f"well, {text}!"

    shown: list[list[str]] = []
    with (
        TeacherServer(says(plain)) as one,
        TeacherServer(says(keen)) as two,
        TeacherServer(judge(shown)) as wise,
    ):
        teachers = [endpoint("one", one.url), endpoint("two", two.url), endpoint("wise", wise.url, system="Be strict.")]
        recipe = project.load(teachers, *FREE)
        told = forecast(recipe, home=project.home)
        assert [part.questions for part in told.each] == [ROWS, ROWS, ROWS]
        with pytest.raises(BudgetReached):
            project.run(project.load(teachers, *FREE, f"teach.budget.requests={2 * ROWS + 5}"))
        assert wise.asked.total() == 5
        made = project.run(project.load(teachers, *FREE, f"teach.budget.requests={3 * ROWS - 1}"))
        assert wise.asked.total() == ROWS - 1, "on one row all say the same"
        assert (one.charged + two.charged + wise.charged) / 1e12 <= told.most.usd
        # What the judge was asked counts when the first has a row more to answer.
        project.rows("pool", ROWS + 1)
        with pytest.raises(BudgetReached):
            project.run(project.load(teachers, *FREE, f"teach.budget.requests={3 * ROWS - 1}"))
        assert one.asked.total() == two.asked.total() == ROWS
    expected = {f"pool text {i}": f"well, pool text {i}!" for i in range(1, ROWS) if i not in (3, 4)}
    assert texts(made) == {"pool text 0": "the same", **expected}
    figures = made.artifacts["teach"].metrics
    assert (figures["judged"], figures["unreadable"], figures["dropped"]) == (ROWS - 1, 2, 2)
    assert figures["requests"] == 3 * ROWS - 1
    dropped = read_jsonl(made.artifacts["curate"].path / "dropped.jsonl")
    assert {(row["input"], row["reason"]) for row in dropped} == {
        ("pool text 3", "not judged"),
        ("pool text 4", "not judged"),
    }
    assert {row["detail"] for row in dropped} == {"the judge named none of the 2 answers"}
    assert len({answers[0].startswith("well") for answers in shown}) == 2, "neither has a place of its own"
    first = wise.requests[0]
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert (first["messages"][0]["content"], first["temperature"]) == ("Be strict.", 0.0)


def test_a_judge_chooses_among_the_draws_of_one_teacher(project):
    def numbered(number: int, text: str) -> Act:
        return Act(text=f"{number} for {text}" + "!" * (number % 3 == 0))

    with TeacherServer(numbered) as one, TeacherServer(judge([])) as wise:
        drawn = endpoint("one", one.url, n=3, temperature=1.0, concurrency=1)
        made = project.run(project.load([drawn, endpoint("wise", wise.url)], *FREE))
    assert one.asked.total() == 3 * ROWS
    assert len(texts(made)) == ROWS - 2
    assert all(text.endswith("!") for text in texts(made).values())


def test_a_judge_that_runs_here_is_as_it_is_and_teachers_keep_their_probabilities(project):
    here = [{"name": name, "model": "./model"} for name in ("one", "two", "wise")]
    made = graph(project.load(here, *FREE[1:], "student={}"))
    assert {"teacher", "teacher:2", "base:3", "teacher:onnx:3"} <= made.keys()
    assert "teacher:3" not in made
    assert made["teacher:onnx:3"].inputs == {"model": "base:3"}
    assert made["teach"].inputs["judge"] == "teacher:onnx:3"
    assert made["teach"].inputs["engine_1"] == "teacher:onnx"
    assert made["teachers:check"].inputs == {"model_1": "base", "model_2": "base:2"}
    assert "score:teacher" in made
    bought = graph(project.load([*here[:2], endpoint("wise")], *FREE[1:], "student={}"))
    assert bought["student:carved"].inputs["model"] == "teacher", "who judges gives no words to learn"


def test_answers_are_in_the_tokens_of_the_student(project, tiny):
    with TeacherServer(says("thanks")) as one, TeacherServer(says("thanks")) as two:
        made = project.run(project.load([endpoint("one", one.url), endpoint("two", two.url)]))
    student = Tokenizer.load(tiny.folder)
    (end,) = student.end_ids
    tokens = {tuple(answer.tokens) for answer in load_answers(made.artifacts["teach"].path)}
    assert tokens == {(*student.encode("thanks"), end)}


@pytest.fixture
def bundle(project, tiny, tiny_onnx) -> Path:
    """A bundle that answers with tickets, and rows of its task."""
    out = project.folder / "support"
    about = {"name": "support", "version": "1.0.0", "engine": "onnxruntime-genai", "lineage": {}}
    write_bundle(out, **about, model_folder=tiny_onnx, task=TASK.describe(), evidence={"models": {}})
    (project.folder / "schema.json").write_text(json.dumps(SCHEMA))
    for side in ("train", "test"):
        rows = [{"input": f"{side} text {i}", "output": {"intent": ("other", "refund")[i % 2]}} for i in range(ROWS)]
        (project.folder / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (project.folder / "pool.jsonl").write_text("".join(json.dumps({"input": text}) + "\n" for text in tiny.pairs))
    return out


TICKETS = "task={kind: extraction, schema: schema.json, max_answer_tokens: 48}"


def test_a_bundle_teaches_by_its_own_engine(project, bundle, tiny):
    recipe = project.load([{"kind": "bundle", "path": str(bundle)}], TICKETS, "teach.batch=2")
    assert [term.kind for term in recipe.train.objective] == ["text"]
    assert recipe.shareable()["teachers"][0]["path"] == "support"
    assert forecast(recipe, home=project.home) is None
    made = project.run(recipe)
    assert texts(made) == dict(tiny.pairs)
    (end,) = tiny.tokenizer.end_ids
    answers = load_answers(made.artifacts["teach"].path)
    assert all(answer.tokens.tolist() == [*tiny.tokenizer.encode(answer.text), end] for answer in answers)
    assert {answer.top_ids.shape[1] for answer in answers} == {0}


def test_a_bundle_votes_beside_an_endpoint(project, bundle, tiny):
    with TeacherServer(says('{"intent":"other"}')) as server:
        teachers = [endpoint("far", server.url), {"kind": "bundle", "path": str(bundle)}]
        made = project.run(project.load(teachers, TICKETS, "teach.combine={weights: {bundle: 2}}"))
    assert texts(made) == dict(tiny.pairs)
    assert made.artifacts["teach"].metrics["rows_of_2"] == len(tiny.pairs), "of equal words they are the heavier one's"
    assert made.artifacts["teach"].metrics["requests"] == len(tiny.pairs)


def test_a_bundle_of_another_task_or_none_is_refused(project, bundle):
    with pytest.raises(BadInput, match=r"is no bundle|manifest"):
        nodes_for(project.load([{"kind": "bundle", "path": str(project.folder)}]))
    narrow = json.loads(json.dumps(SCHEMA))
    narrow["properties"]["intent"]["enum"].append("praise")
    (project.folder / "schema.json").write_text(json.dumps(narrow))
    with pytest.raises(BadInput, match="the bundle support has another task: its `schema` is not that of the recipe"):
        project.run(project.load([{"kind": "bundle", "path": str(bundle)}], TICKETS))
