"""Where in a run rows are bought in rounds, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.pipeline.keys import address
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.stage import Node
from slmops.recipe import Recipe, parse_recipe
from slmops.recipe.teachers import Asking
from slmops.select.stage import SelectAnswers
from slmops.train.stage import DistilSettings

ENDPOINT = {
    "kind": "endpoint",
    "base_url": "http://127.0.0.1:9/v1",
    "model": "big",
    "price": {"input_usd": 1.0, "output_usd": 2.0},
}


@pytest.fixture
def recipe(tmp_path: Path, tiny):
    """A recipe of an endpoint, or of a teacher here, with these parts of `teach`."""
    (tmp_path / "model").symlink_to(tiny.folder)
    for side in ("train", "test", "pool"):
        rows = ({"input": f"{side} {i}"} | ({} if side == "pool" else {"output": "ab"[i % 2]}) for i in range(8))
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read(teacher: dict[str, Any], **teach: Any) -> Recipe:
        given = {
            "name": "chosen",
            "task": {"kind": "classification"},
            "data": {side: f"{side}.jsonl" for side in ("train", "test", "pool")},
            "teachers": [teacher],
            "student": {"model": "./model", "carve": {"layers": 1}},
            "teach": teach,
        }
        return parse_recipe(given, folder=tmp_path)

    return read


def graph(recipe: Recipe) -> dict[str, Node]:
    return {node.id: node for node in nodes_for(recipe)}


def test_one_step_stands_in_the_place_of_the_teachers_and_reads_what_its_rounds_need(recipe):
    plain, chosen = graph(recipe(ENDPOINT)), graph(recipe(ENDPOINT, select="uncertainty"))
    assert plain.keys() == chosen.keys()
    assert chosen["teach"].stage is SelectAnswers
    assert dict(chosen["teach"].inputs) == {
        "data": "data",
        "rows": "data",
        "teach:model": "student:base",
        "carve:model": "student:base",
        "carve:data": "data",
        "learn:data": "data",
    }
    changed = {name for name in plain if plain[name].inputs != chosen[name].inputs}
    assert changed == {"teach", "report"}
    assert chosen["report"].inputs["bought"] == "teach"
    settings = chosen["teach"].settings
    assert (settings.distil, settings.carve) == (plain["student"].settings, plain["student:carved"].settings)
    assert isinstance(settings.distil, DistilSettings)


def test_a_teacher_that_runs_here_writes_with_its_export_and_its_tokens_are_read(recipe):
    made = graph(recipe({"model": "./model"}, select="random"))["teach"]
    told = {name: node for name, node in made.inputs.items() if ":" in name}
    assert told == {
        "teach:model": "teacher",
        "teach:engine": "teacher:onnx",
        "carve:model": "student:base",
        "carve:data": "data",
        "carve:teacher": "teacher",
        "learn:data": "data",
        "learn:teacher": "teacher",
    }
    assert isinstance(made.settings.asking, Asking)


def test_what_decides_how_much_is_bought_makes_another_result_and_how_it_is_asked_does_not(recipe):
    def key(**changed: Any) -> str:
        budget = changed.pop("budget", {})
        told = recipe(ENDPOINT | changed, select="uncertainty", budget=budget)
        return {step.node.id: step.key for step in address(nodes_for(told), 7)}["teach"]

    assert key() == key(name="x", concurrency=64, key_env="OTHER")
    assert len({key(), key(budget={"usd": 1.0}), key(budget={"usd": 2.0}), key(price=None), key(model="x")}) == 5
