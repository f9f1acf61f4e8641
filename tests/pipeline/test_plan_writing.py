"""Where in a run a teacher writes rows and solutions, who reads them, and what is said of their cost before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.endpoints import retry
from slmops.errors import BadInput
from slmops.pipeline.keys import address
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.plan.writing import WRITER
from slmops.pipeline.run import forecast, run_graph
from slmops.pipeline.stage import Node
from slmops.recipe import Recipe
from slmops.teach.write import longest_bytes
from tests.endpoints.teacher_server import Act, TeacherServer

RECIPE = """
name: written
task: {{kind: {kind}, max_answer_tokens: 8}}
data: {{train: train.jsonl, test: test.jsonl, pool: pool.jsonl}}
teachers: [{{model: ./model}}]
"""
WRITE = "teach.write={rows: 6, texts: 2, rounds: 2}"
TALK = "teach.converse={rows: 3, turns: 2, personas: [a driver]}"
REMOTE = ("teachers=[{{kind: endpoint, base_url: '{}', model: big, price: {{input_usd: 1, output_usd: 2}}}}]",)
OUTPUTS = {"classification": ("refund", "thanks"), "maths": (3, 4), "conversation": ("well", "no")}


@pytest.fixture
def project(tmp_path, tiny, monkeypatch):
    """Writes a recipe of this kind, and reads it with overrides."""
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.01)
    (tmp_path / "model").symlink_to(tiny.folder)

    def load(kind: str, *overrides: str) -> Recipe:
        for side in ("train", "test", "pool"):
            rows = [
                {"input": f"{side} text {i}"} | ({} if side == "pool" else {"output": OUTPUTS[kind][i % 2]})
                for i in range(20)
            ]
            (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(kind=kind))
        return Recipe.load(tmp_path / "recipe.yaml", overrides)

    return load


def graph(recipe: Recipe) -> dict[str, Node]:
    return {node.id: node for node in nodes_for(recipe)}


def of_endpoint(url: str = "https://api.example.com/v1") -> tuple[str, ...]:
    return (*(one.format(url) for one in REMOTE), "student={model: ./model}")


def test_what_is_written_stands_before_the_answers_and_whoever_learns_reads_it(project):
    made = graph(project("classification", WRITE))
    assert dict(made["write"].inputs) == {"data": "data", "model": WRITER}
    assert dict(made[WRITER].inputs) == {"model": "base"}, "a fitted teacher has unlearned to write"
    read = {name: node.inputs.get("data") for name, node in made.items()}
    assert {name for name, data in read.items() if data == "write"} == {"teach", "student:carved", "student", "card"}
    assert read["teacher"] == read["baseline"] == read["score:student"] == read["evaluate"] == "data"
    assert made["report"].inputs["write"] == "write"


def test_without_it_nothing_is_written_and_keys_stay_as_they_are(project):
    def keys(recipe: Recipe) -> dict[str, str]:
        return {step.node.id: step.key for step in address(nodes_for(recipe), recipe.seed)}

    plain, written = keys(project("classification")), keys(project("classification", WRITE))
    assert not {"write", "converse", "reason", WRITER} & plain.keys()
    assert {"data", "base", "teacher", "teacher:onnx"} <= {n for n in plain if plain[n] == written.get(n)}


def test_solutions_are_what_a_teacher_is_fitted_to_and_the_baseline_has_none(project):
    made = graph(project("maths", "teach.reason={attempts: 2}", WRITE))
    assert (made["write"].inputs["data"], made["reason"].inputs["data"]) == ("data", "write")
    read = {name: node.inputs.get("data") for name, node in made.items()}
    assert {n for n, data in read.items() if data == "reason"} == {
        "teacher",
        "teach",
        "student:carved",
        "student",
        "card",
    }
    assert read["baseline"] == "data"


def test_talks_stand_behind_what_was_written(project):
    made = graph(project("conversation", WRITE, TALK))
    assert (made["converse"].inputs["data"], made["teach"].inputs["data"]) == ("write", "converse")


def test_a_teacher_in_pytorch_and_one_behind_an_endpoint_need_no_export(project):
    made = graph(project("classification", WRITE, "teach.engine=transformers"))
    assert WRITER not in made
    assert made["write"].inputs["model"] == "base"
    made = graph(project("classification", WRITE, *of_endpoint()))
    assert dict(made["write"].inputs) == {"data": "data"}
    assert made["teach"].inputs["data"] == "write"


def test_healing_reads_what_was_written(project):
    made = graph(project("classification", WRITE, "student.heal={tokens: 100}"))
    assert (made["student:healed"].inputs["data"], made["baseline:healed"].inputs["data"]) == ("write", "data")


def test_where_rows_are_written_no_pool_is_needed(project):
    with pytest.raises(BadInput, match=r"data\.pool is missing") as error:
        graph(project("classification", "data.pool=null"))
    assert "teach.write" in (error.value.hint or "")
    assert "write" in graph(project("classification", "data.pool=null", WRITE))


def test_labels_and_routes_that_there_are_not_are_refused_before_anything_runs(project):
    wanted = "teach.write={per_label: {refnd: 3}}"
    with pytest.raises(BadInput, match=r"per_label\.refnd is no label of the task") as error:
        graph(project("classification", wanted, "task.labels=[refund, thanks]"))
    assert "did you mean `refund`?" in (error.value.hint or "")
    two = "teachers=[{model: ./model}, {name: other, model: ./model}]"
    routed = "teach.combine={how: routed, by: source, routes: {a: local, b: other}}"
    with pytest.raises(BadInput, match="rows that the teacher writes have no `source`"):
        graph(project("classification", two, routed, WRITE))


def writes(number: int, text: str) -> Act:
    if "JSON array" in text:
        return Act(text=json.dumps([f"new {number}", f"more {number}"]))
    if "step by step" in text:
        return Act(text="Steps.\n#### 3")
    return Act(text=f"says {number}")


PARTS = {
    "classification": ("write", WRITE),
    "conversation": ("converse", TALK),
    "maths": ("reason", "teach.reason={attempts: 2, at_least: 0.0}"),
}


@pytest.mark.parametrize("kind", PARTS)
def test_a_forecast_bounds_what_is_asked_and_knows_what_was_bought(project, tmp_path, kind):
    node, part = PARTS[kind]
    with TeacherServer(writes) as server:
        recipe = project(kind, part, *of_endpoint(server.url))
        home = tmp_path / ".slmops"
        (before,) = forecast(recipe, home=home).each
        assert not home.exists(), "a forecast writes nothing"
        nodes = [one for one in nodes_for(recipe) if one.id in ("data", node)]
        made = run_graph(nodes, name="x", resolved_recipe={}, seed=recipe.seed, home=home)
        figures = made.artifacts[node].metrics
        assert 0 < figures["requests"] == server.asked.total() <= before.writing
        # What is held back for a request is what it costs at most.
        assert figures["usd"] <= before.most.usd
        (after,) = forecast(recipe, home=home).each
    assert after.writing == 0
    assert after.rows == after.questions == 20 + {"write": 6, "converse": 3, "reason": 0}[node]
    assert after.most.tokens < before.most.tokens
    assert before.rows == after.rows
    assert f"{before.writing} requests that write rows or solutions, " in str(before)
    assert "requests that write" not in str(after)
    assert before.describe()["writing"] == before.writing


def test_a_forecast_takes_unknown_rows_for_as_long_as_they_may_be(project, tmp_path):
    recipe = project("classification", WRITE, *of_endpoint())
    (told,) = forecast(recipe, home=tmp_path / "h").each
    (plain,) = forecast(project("classification", *of_endpoint()), home=tmp_path / "h").each
    assert (told.writing, told.questions) == (6, plain.questions + 6)
    assert recipe.teach.write
    longest = longest_bytes(recipe.teach.write, [{"input": "train text 19"}])
    assert told.most.tokens - plain.most.tokens > 6 * (512 + longest + 8) + 6 * (512 + 1024)


def test_data_that_cannot_be_used_is_told_by_the_forecast(project, tmp_path):
    recipe = project("classification", "teach.write={per_label: {refnd: 3}}", *of_endpoint())
    with pytest.raises(BadInput, match=r"per_label\.refnd: no training row has this label"):
        forecast(recipe, home=Path(tmp_path / "h"))


GUEST = (
    "teach.converse.user={{kind: endpoint, name: guest, base_url: '{}', model: small, "
    "price: {{input_usd: 1, output_usd: 2}}}}"
)
HERE = "teach.converse.user={name: guest, model: ./model}"


def test_a_user_that_runs_here_is_a_node_and_one_behind_an_endpoint_is_none(project):
    made = graph(project("conversation", TALK, HERE))
    assert dict(made["converse"].inputs) == {"data": "data", "model": WRITER, "user": "user:onnx"}
    assert dict(made["user:onnx"].inputs) == {"model": "user"}
    made = graph(project("conversation", TALK, HERE, *of_endpoint()))
    assert dict(made["converse"].inputs) == {"data": "data", "user": "user:onnx"}
    made = graph(project("conversation", TALK, HERE, "teach.engine=transformers"))
    assert dict(made["converse"].inputs) == {"data": "data", "model": "base", "user": "user"}
    made = graph(project("conversation", TALK, GUEST.format("https://guest.example/v1"), *of_endpoint()))
    assert dict(made["converse"].inputs) == {"data": "data"}
    assert "user" not in made


def test_what_a_user_here_is_called_is_in_no_key(project):
    def key(*overrides: str) -> str:
        recipe = project("conversation", TALK, HERE, *overrides)
        return {step.node.id: step.key for step in address(nodes_for(recipe), recipe.seed)}["converse"]

    assert key() == key("teach.converse.user.name=other")
    assert key() != key("teach.converse.user.chat_template=chatml")


def test_a_forecast_counts_both_and_names_both(project, tmp_path):
    def asks(number: int, _text: str) -> Act:
        return Act(text=f"asks {number}")

    home = tmp_path / ".slmops"
    with TeacherServer(writes) as big, TeacherServer(asks) as small:
        recipe = project("conversation", TALK, GUEST.format(small.url), *of_endpoint(big.url))
        before = forecast(recipe, home=home)
        assert f"big at 127.0.0.1:{big.port} and, as the user, small at 127.0.0.1:{small.port}: 6 requests" in str(
            before
        )
        assert before.describe()["user"] == f"small at 127.0.0.1:{small.port}"
        nodes = [one for one in nodes_for(recipe) if one.id in ("data", "converse")]
        made = run_graph(nodes, name="x", resolved_recipe={}, seed=recipe.seed, home=home)
        figures = made.artifacts["converse"].metrics
        assert figures["requests"] == big.asked.total() + small.asked.total() == before.each[0].writing == 6
        assert figures["usd"] <= before.most.usd
        after = forecast(recipe, home=home)
    assert (after.each[0].writing, after.each[0].questions) == (0, 23)
    unpriced = project(
        "conversation", TALK, GUEST.format(small.url), *of_endpoint(big.url), "teach.converse.user.price=null"
    )
    assert "price unknown" in str(forecast(unpriced, home=home))


def test_a_user_that_runs_here_costs_nothing_and_its_talks_are_as_long_as_they_may_be(project, tmp_path):
    longer = "teach.converse={rows: 3, turns: 3, max_message_tokens: 8, personas: [a driver]}"
    alone = forecast(project("conversation", longer, *of_endpoint()), home=tmp_path / "h")
    told = forecast(project("conversation", longer, HERE, *of_endpoint()), home=tmp_path / "h")
    assert (alone.each[0].writing, told.each[0].writing) == (12, 6), (
        "of each turn the assistant's message alone is bought"
    )
    assert told.each[0].questions == alone.each[0].questions == 23
