"""Two teachers from one recipe to one bundle, and a row that goes to one of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tiny_project import Cli

from slmops.pipeline.plan import nodes_for
from slmops.pipeline.run import run_graph
from slmops.recipe import load_recipe
from slmops.teach.answers import load_answers

pytestmark = pytest.mark.timeout(300)

HOME = "several/.slmops"
FIT = "fit: {epochs: 25, learning_rate: 5.0e-3, batch_tokens: 512, precision: fp32}"
TEACHERS = f"teachers=[{{name: local, model: ./model, {FIT}}}, {{name: other, model: ./second, {FIT}}}]"
SMALL = ("data.sample.pool=24", "data.sample.test=20", "train.epochs=2", "train.baseline=false", "evaluate.gates={}")


def test_two_teachers_teach_one_student_and_everything_names_them(cli: Cli, second_model: Path) -> None:
    settings = (TEACHERS, "teach.combine={weights: {other: 2}}", *SMALL)
    run = cli.run(HOME, *(word for one in settings for word in ("--set", one)))
    assert run["exit_code"] == 0
    taught = run["metrics"]["teach"]
    assert taught["rows"] + taught["dropped"] == 24
    assert taught["rows_of_2"] > 0, "the heavier one wins wherever it has an answer"
    answers = load_answers(Path(run["steps"]["teach"]["path"]))
    theirs = {answer.id: answer.text for answer in load_answers(Path(run["steps"]["teach:2"]["path"]))}
    assert theirs.items() <= {answer.id: answer.text for answer in answers}.items()
    assert {answer.top_ids.shape[1] for answer in answers} == {16}
    page = (Path(run["steps"]["report"]["path"]) / "report.html").read_text()
    assert "2 teachers (local, other)" in page
    manifest = json.loads((cli.folder / "several/bundles/tiny/manifest.json").read_text())
    assert [teacher["name"] for teacher in manifest["lineage"]["recipe"]["teachers"]] == ["local", "other"]
    card = (cli.folder / "several/bundles/tiny/MODEL_CARD.md").read_text()
    assert "Distilled from `model`, `second`" in card

    # The same two, now by what the first one answers: nothing of what both were taught is made again.
    said = Counter(json.loads(answer.text)["intent"] for answer in load_answers(Path(run["steps"]["teach:1"]["path"])))
    label = said.most_common(1)[0][0]
    routed = f"teach.combine={{how: routed, by: label, routes: {{{label}: other}}, otherwise: local}}"
    recipe = load_recipe(cli.folder / "recipe.yaml", [TEACHERS, routed, *SMALL])
    nodes = nodes_for(recipe)
    last = next(i for i, node in enumerate(nodes) if node.id == "teach")
    again = run_graph(nodes[: last + 1], name="routed", resolved_recipe={}, seed=recipe.seed, home=cli.folder / HOME)
    made = {id for id, step in again.artifacts.items() if not step.cached}
    assert made == {"route:2", "teach:2", "teach"}
    assert again.artifacts["route:2"].metrics["rows"] == said[label]
    sent = {row["id"] for row in map(json.loads, (again.artifacts["route:2"].path / "pool.jsonl").open())}
    joined = {answer.id: answer.text for answer in load_answers(again.artifacts["teach"].path)}
    first = {answer.id: answer.text for answer in load_answers(again.artifacts["teach:1"].path)}
    assert {id: text for id, text in joined.items() if id not in sent} == {
        id: text for id, text in first.items() if id not in sent
    }
    assert all(theirs.get(id) == joined.get(id) for id in sent)
