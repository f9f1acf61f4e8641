"""The graph of several adapters on one base, and what such a recipe cannot ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.cli.main import app
from slmops.errors import BadInput
from slmops.pipeline.keys import address
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.plan.needs import trainings
from slmops.recipe import Recipe
from slmops.recipe.load import parse_recipe
from slmops.samples.project import write_project
from tests.pipeline.test_plan_tuning import ids
from tests.pipeline.test_plan_tuning import recipe as tuned

CLASSES = {"kind": "classification"}
ROWS = {"train": "train.jsonl", "test": "test.jsonl"}
TWO: dict[str, Any] = {"late": {}, "short": {"task": {"kind": "qa"}}}


def recipe(folder: Path, model: Path, **parts: Any) -> Recipe:
    """Adapters that have the recipe's rows and method where they say no other."""
    return tuned(folder, model, **{"train": {"method": "lora"}, "adapters": TWO, **parts})


def keys(of: Recipe) -> dict[str, str]:
    return {step.node.id: step.key for step in address(nodes_for(of), of.seed)}


def test_each_adapter_is_trained_and_measured_by_itself_and_merged_ones_beside_it(tiny, tmp_path):
    made = recipe(tmp_path, tiny.folder, merge={"method": "ties"})
    late, short = (
        [f"score:floor:{name}", f"score:base:{name}", f"score:student:{name}", f"evaluate:{name}", f"report:{name}"]
        for name in TWO
    )
    own = ["data:late", "student:base", "adapter:late", *late, "data:short", "adapter:short", *short]
    merged = ["score:merged:ties:late", "merged:late", "score:merged:ties:short", "merged:short"]
    assert ids(made) == [*own, "merge:ties", *merged, "shipped", "bundle", "parity", "report"]
    nodes = {node.id: node for node in nodes_for(made)}
    assert nodes["adapter:short"].inputs == {"model": "student:base", "data": "data:short"}
    assert nodes["merge:ties"].inputs["base"] == "student:base"
    assert nodes["merge:ties"].settings.density == 0.5
    assert nodes["merged:late"].inputs["merged:ties"] == "score:merged:ties:late"
    assert nodes["data:short"].settings.task.kind == "qa"


def test_one_more_adapter_changes_nothing_of_the_others(tiny, tmp_path):
    before = keys(recipe(tmp_path, tiny.folder))
    after = keys(recipe(tmp_path, tiny.folder, adapters={**TWO, "third": {"train": {"epochs": 1}}}))
    assert {node for node in before if after[node] != before[node]} == {"shipped", "bundle", "parity", "report"}
    assert {node.rpartition(":")[2] for node in after.keys() - before.keys()} == {"third"}


def test_the_base_that_adapters_share_is_made_small_by_no_rows(tiny, tmp_path):
    nodes = {node.id: node for node in nodes_for(recipe(tmp_path, tiny.folder, compress={"precision": "int4"}))}
    assert (nodes["shipped"].settings.precision, nodes["shipped"].settings.algorithm) == ("int4", "rtn")
    assert nodes["shipped"].inputs == {node: node for node in ("adapter:late", "adapter:short")} | {
        "base": "student:base"
    }
    assert recipe(tmp_path, tiny.folder).compress.precision == "int8"


def test_nothing_ships_where_an_adapter_does_not_stand_beside_a_base(tiny, tmp_path):
    made = recipe(tmp_path, tiny.folder, adapters={"late": {}, "short": {"train": {"method": "dora"}}})
    assert not made.slots
    assert not {"shipped", "bundle", "parity"} & set(ids(made))


def test_an_adapter_is_the_one_of_a_recipe_with_it_alone(tiny, tmp_path):
    alone = tuned(tmp_path, tiny.folder, train={"method": "lora"})
    assert keys(alone)["student"] == keys(recipe(tmp_path, tiny.folder))["adapter:late"]


def test_what_an_adapter_does_not_say_is_the_recipes(tiny, tmp_path):
    train = {"method": "lora", "epochs": 2, "learning_rate": 0.1, "adapter": {"rank": 8}}
    adapters = {
        "same": {},
        "own": {"train": {"epochs": 5}},
        "other": {"train": {"method": "ia3"}, "task": {"kind": "qa"}},
    }
    made = recipe(tmp_path, tiny.folder, train=train, adapters=adapters).adapters
    assert {name: one.train.epochs for name, one in made.items()} == {"same": 2, "own": 5, "other": 2}
    assert {name: one.train.learning_rate for name, one in made.items()} == {"same": 0.1, "own": 0.1, "other": 0.01}
    assert made["own"].train.adapter.rank == 8
    assert made["other"].task.kind == "qa"
    assert made["same"].data.train == tmp_path / "train.jsonl"


def test_task_and_data_may_stand_with_the_adapters_alone(tiny, tmp_path):
    tuned(tmp_path, tiny.folder)
    given = {"name": "x", "student": {"model": str(tiny.folder)}, "train": {"method": "lora"}}
    whole = {"task": CLASSES, "data": ROWS}
    made = parse_recipe({**given, "adapters": {"late": whole}}, folder=tmp_path)
    assert ids(made)[0] == "data:late"
    # What the first one says is no default of the others.
    with pytest.raises(BadInput, match=r"adapters.short.data is missing"):
        parse_recipe({**given, "adapters": {"late": whole, "short": {"task": CLASSES}}}, folder=tmp_path)


def test_what_is_wrong_is_told_once_and_where_it_is_written(tiny, tmp_path):
    with pytest.raises(BadInput) as refused:
        recipe(tmp_path, tiny.folder, train={"method": "lora", "epoch": 3})
    assert str(refused.value) == "train.epoch is not a known key; did you mean train.epochs?"
    given = {
        "name": "x",
        "student": {"model": str(tiny.folder)},
        "adapters": {"a": {"task": {"kind": "x"}, "data": ROWS}},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(given))
    with pytest.raises(BadInput, match=r"^\S+:1: adapters.a.task.kind is \"x\"; allowed: [a-z, ]*$"):
        Recipe.load(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"train": {}}, "adapters.late.train.method` is full"),
        ({"train": {"method": "qlora"}}, "four bits"),
        ({"teachers": [{"model": "."}], "student": {}}, "`teachers` and `adapters` exclude each other"),
        ({"student": {}}, "the base that all"),
        ({"student": {"model": ".", "carve": {"layers": 2}}}, "student.carve"),
        ({"student": {"model": ".", "head": "tags"}}, "student.head: tags"),
        (
            {"train": {"method": "dora"}, "compress": {"precision": "int8"}},
            "`compress`: `late` has `train.method: dora`",
        ),
        ({"compress": {"algorithm": "gptq", "precision": "int4"}}, "set `algorithm` to rtn or k_quant"),
        ({"compress": {"runtime": "llama.cpp"}}, "`compress.runtime: llama.cpp` runs no adapters"),
        ({"compress": {"search": {"subject_to": {"accuracy": {"max_drop": 0.01}}}}}, "`compress.search` looks for one"),
        ({"adapters": {"no/path": {}}}, "a name has lower-case letters"),
        ({"adapters": {"late": {"data": {"pool": "test.jsonl"}}}}, "`adapters.late`: `data.pool` needs a teacher"),
        ({"adapters": {}, "merge": {"method": "ties"}}, "`merge` is of `adapters`"),
        ({"merge": {"method": "slerp"}}, 'merge.0.method is "slerp"'),
        ({"merge": {"method": "ties", "of": ["late", "shrt"]}}, "`shrt` is none of late, short"),
        ({"merge": {"method": "ties", "of": ["late"]}}, "two adapters"),
        ({"merge": {"method": "ties", "weights": {"lat": 1.0}}}, "merge.0.weights"),
        ({"merge": [{"method": "ties"}, {"method": "ties", "density": 0.2}]}, "two are called ties"),
        ({"merge": {"method": "cat", "density": 0.2}}, "cat keeps every entry"),
        (
            {"merge": {"method": "linear"}, "adapters": {"a": {}, "b": {"train": {"adapter": {"rank": 4}}}}},
            "a has 16, b has 4: take cat",
        ),
        (
            {"merge": {"method": "cat"}, "adapters": {"a": {}, "b": {"train": {"method": "prompt"}}}},
            "`b` has `train.method: prompt`",
        ),
    ],
)
def test_what_several_adapters_cannot_have_is_refused(tiny, tmp_path, parts, told):
    with pytest.raises(BadInput, match=told):
        recipe(tmp_path, tiny.folder, **parts)


def test_a_gate_on_what_a_task_has_not_names_the_adapter(tiny, tmp_path):
    made = recipe(tmp_path, tiny.folder, evaluate={"gates": {"macro_f1": {"min": 0.5}}})
    with pytest.raises(BadInput, match=r"adapters.short: evaluate.gates.macro_f1"):
        nodes_for(made)


def test_a_plan_tells_of_every_adapter(tiny, tmp_path):
    told = trainings(recipe(tmp_path, tiny.folder), tmp_path / "home")
    assert [(training.node, training.method) for training in told] == [
        ("adapter:late", "lora"),
        ("adapter:short", "lora"),
    ]
    assert all(training.forecast.tokens for training in told)


def test_where_files_lay_is_nobodys_business(tiny, tmp_path):
    assert str(tmp_path) not in str(recipe(tmp_path, tiny.folder).shareable())


def test_a_check_counts_the_adapters(tiny, tmp_path, monkeypatch, capsys):
    tuned(tmp_path, tiny.folder)
    monkeypatch.chdir(tmp_path)
    given = {"name": "helpers", "student": {"model": str(tiny.folder)}, "train": {"method": "lora"}, "data": ROWS}
    Path("recipe.yaml").write_text(json.dumps({**given, "task": CLASSES, "adapters": {"late": {}, "later": {}}}))
    app(["check", "recipe.yaml"], standalone_mode=False)
    assert "helpers (2 adapters)" in capsys.readouterr().out


def test_a_new_project_may_be_one_of_adapters(tmp_path):
    files = write_project(tmp_path / "mine", template="adapters")
    assert all(path.is_file() for path in files)
    made = Recipe.load(tmp_path / "mine" / "recipe.yaml")
    assert {name: one.task.kind for name, one in made.adapters.items()} == {
        "tickets": "extraction",
        "intents": "classification",
    }
    assert [merge.called for merge in made.merge] == ["ties"]
    assert "pool" not in (tmp_path / "mine" / "README.md").read_text()
    with pytest.raises(BadInput, match="one for each kind"):
        write_project(tmp_path / "other", "classification", "adapters")
    assert not (tmp_path / "other").exists()
