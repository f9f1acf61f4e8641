"""Two teachers from one recipe to one student: all rows answered by both, then some by one and some by the other.

What comes behind the student is the same as with one teacher.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from tiny_project import Cli

from slmops.pipeline.plan import nodes_for
from slmops.pipeline.run import RunResult, run_graph
from slmops.recipe import load_recipe
from slmops.teach.answers import load_answers

pytestmark = pytest.mark.timeout(600)

FIT = "fit: {epochs: 25, learning_rate: 5.0e-3, batch_tokens: 512, precision: fp32}"
TEACHERS = f"teachers=[{{name: local, model: ./model, {FIT}}}, {{name: other, model: ./second, {FIT}}}]"
SMALL = ("data.sample.pool=24", "data.sample.test=20", "train.epochs=2", "train.baseline=false")


def run_to(node: str, cli: Cli, combine: str) -> RunResult:
    """The recipe with two teachers, run as far as `node`; what was made is used again."""
    recipe = load_recipe(cli.folder / "recipe.yaml", [TEACHERS, f"teach.combine={combine}", *SMALL])
    nodes = nodes_for(recipe)
    last = next(i for i, one in enumerate(nodes) if one.id == node)
    home = cli.folder / "several/.slmops"
    return run_graph(nodes[: last + 1], name="several", resolved_recipe={}, seed=recipe.seed, home=home)


def texts(folder: Path) -> dict[str, str]:
    return {answer.id: answer.text for answer in load_answers(folder)}


def test_two_teachers_teach_one_student(cli: Cli, second_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first teacher's engine would take all cores, and the second would be fitted with as many threads.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    made = run_to("student", cli, "{weights: {other: 2}}").artifacts
    taught = made["teach"].metrics
    assert int(taught["rows"]) + int(taught["dropped"]) == 24
    assert int(taught["rows_of_2"]) > 0
    first, second = (texts(made[f"teach:{n}"].path) for n in (1, 2))
    # The heavier one counts wherever it has an answer.
    assert texts(made["teach"].path) == first | second
    assert {answer.top_ids.shape[1] for answer in load_answers(made["teach"].path)} == {16}
    assert float(made["student"].metrics["loss_forward_kl"]) > 0
    assert (made["student"].path / "model/model.safetensors").is_file()

    said = Counter(json.loads(text)["intent"] for text in first.values())
    label = said.most_common(1)[0][0]
    routed = run_to("teach", cli, f"{{how: routed, by: label, routes: {{{label}: other}}, otherwise: local}}").artifacts
    assert {id for id, step in routed.items() if not step.cached} == {"route:2", "teach:2", "teach"}
    assert routed["route:2"].metrics["rows"] == said[label]
    sent = {json.loads(row)["id"] for row in (routed["route:2"].path / "pool.jsonl").read_text().splitlines()}
    theirs = texts(routed["teach:2"].path)
    assert theirs.keys() <= sent
    assert texts(routed["teach"].path) == {id: text for id, text in first.items() if id not in sent} | theirs
