"""The graph of a recipe without a teacher, and what such a recipe cannot ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.cli.plan import _lines
from slmops.errors import BadInput
from slmops.models.source import load_model
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.plan.needs import trainings
from slmops.recipe import Recipe
from slmops.recipe.load import parse_recipe
from slmops.samples.project import write_project


def recipe(folder: Path, model: Path, **parts: Any) -> Recipe:
    rows = [{"input": f"Where is order {n}?", "output": "late" if n % 2 else "other"} for n in range(40)]
    for name, part in (("train", rows[:30]), ("test", rows[30:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    given = {
        "name": "tuned",
        "task": {"kind": "classification"},
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "student": {"model": str(model)},
    }
    return parse_recipe({**given, **parts}, folder=folder)


def ids(of: Recipe) -> list[str]:
    return [node.id for node in nodes_for(of)]


def test_a_model_is_tuned_and_shipped_without_a_teacher(tiny, tmp_path):
    made = recipe(tmp_path, tiny.folder, train={"method": "lora"})
    before = ["data", "student:base", "student", "shipped", "score:floor", "score:base", "score:student"]
    assert ids(made) == [*before, "score:shipped", "evaluate", "card", "calibrate", "bundle", "parity", "report"]
    (student,) = (node for node in nodes_for(made) if node.id == "student")
    assert student.settings.adapter.rank == 16
    assert student.settings.optimisation.learning_rate == 1e-3
    (checked,) = set(ids(recipe(tmp_path, tiny.folder, student={"model": str(tiny.folder), "head": "tags"}))) - set(
        ids(made)
    )
    assert checked == "student:marks"
    assert "score:base" not in ids(recipe(tmp_path, tiny.folder, train={"baseline": False}))


def test_what_cannot_be_merged_is_measured_and_does_not_ship(tiny, tmp_path):
    made = recipe(tmp_path, tiny.folder, train={"method": "prompt"})
    assert not made.ships
    assert ids(made)[2:] == ["student", "score:floor", "score:base", "score:student", "evaluate", "report"]
    gates = {"exact_match_kept": {"min": 0.9}}
    with pytest.raises(BadInput, match="exact_match_kept"):
        nodes_for(recipe(tmp_path, tiny.folder, train={"method": "prompt"}, evaluate={"gates": gates}))


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"student": {}}, "nobody to learn from"),
        (
            {"task": {"kind": "generation"}, "student": {"model": "wheel:none", "head": "tags"}},
            "`student.head: tags` is for extraction, classification and nli, and `task.kind` is generation",
        ),
        ({"student": {"model": ".", "carve": {"layers": 2}}}, "student.carve"),
        ({"train": {"objective": {"kind": "forward_kl"}}}, "train.objective"),
        ({"train": {"baseline_epochs": 2}}, "train.baseline_epochs"),
        ({"teach": {"top_logits": 4}}, "teach"),
        ({"compress": {"recover": {}}}, "compress.recover"),
        ({"train": {"method": "prompt"}, "compress": {"precision": "int8"}}, "cannot be merged"),
        ({"train": {"method": "lora"}, "teachers": [{"model": ".", "fit": {"method": "prompt"}}]}, "cannot be merged"),
        ({"train": {"method": "prompt"}, "teachers": [{"model": "."}]}, "cannot be merged"),
    ],
)
def test_what_needs_a_teacher_or_a_plain_model_is_refused(tiny, tmp_path, parts, told):
    with pytest.raises(BadInput, match=told):
        recipe(tmp_path, tiny.folder, **parts)


def test_a_model_learns_by_the_loss_that_the_recipe_says(tiny, tmp_path):
    weights = {"late": 2.0, "other": 1.0}
    text = {"kind": "text", "label_smoothing": 0.1, "class_weights": weights}
    task = {"kind": "classification", "labels": ["late", "other"]}
    made = recipe(tmp_path, tiny.folder, task=task, train={"objective": text})
    (student,) = (node for node in nodes_for(made) if node.id == "student")
    assert student.settings.objective[0].class_weights == weights
    odd = {**text, "class_weights": {"lat": 2.0}}
    with pytest.raises(BadInput, match=r"class_weights.lat is no label of the task"):
        nodes_for(recipe(tmp_path, tiny.folder, task=task, train={"objective": odd}))
    with pytest.raises(BadInput, match="an answer of this task has no label"):
        nodes_for(recipe(tmp_path, tiny.folder, task={"kind": "generation"}, train={"objective": text}))


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "prompt"])
def test_a_plan_tells_what_moves_and_what_it_needs(tiny, tmp_path, method):
    (training,) = trainings(recipe(tmp_path, tiny.folder, train={"method": method}), tmp_path / "home")
    every = sum(weight.numel() for weight in load_model(tiny.folder).parameters())
    told = training.forecast
    assert training.node == "student"
    assert not training.figures
    if method == "full":
        assert told.parameters == told.trainable == every
    else:
        assert told.parameters == every + told.trainable
    assert told.tokens > 0
    text = "\n".join(_lines(training))
    assert f"moves   {told.trainable:,} of {told.parameters:,} weights" in text
    assert "measured" not in text


def test_a_new_project_may_be_one_that_fine_tunes(tmp_path):
    files = write_project(tmp_path / "mine", "classification", "finetune")
    assert tmp_path / "mine" / "data" / "pool.jsonl" not in files
    made = Recipe.load(tmp_path / "mine" / "recipe.yaml")
    assert not made.teachers
    assert made.train.method == "lora"
    assert "pool" not in (tmp_path / "mine" / "README.md").read_text()
