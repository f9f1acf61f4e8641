"""The graph of a run: what follows what, and what a changed setting makes anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from slmops.bundle import write_bundle
from slmops.bundle.stage import OpenBundle
from slmops.errors import BadInput
from slmops.models.stage import Fetch
from slmops.pipeline.keys import address, in_order
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.stage import Node
from slmops.recipe import Recipe
from slmops.recipe.training import OnPolicy
from slmops.samples.project import write_project
from slmops.search.stage import Search
from slmops.tasks import make_task

NODES = [
    "data",
    "base",
    "teacher",
    "teacher:onnx",
    "teach",
    "curate",
    "student:carved",
    "student",
    "shipped",
    "baseline:carved",
    "baseline",
    "teacher:same",
    "score:floor",
    "score:teacher",
    "score:teacher_same",
    "score:baseline",
    "score:student",
    "score:shipped",
    "evaluate",
    "card",
    "bundle",
    "parity",
    "report",
]
AFTER_COMPRESS = {
    "shipped",
    "teacher:same",
    "score:shipped",
    "score:teacher_same",
    "evaluate",
    "card",
    "bundle",
    "parity",
    "report",
}


@pytest.fixture
def project(tiny, tmp_path) -> Path:
    """A project on files of its own, whose teacher is a folder beside the recipe."""
    folder = tmp_path / "project"
    write_project(folder, "extraction")
    shutil.copytree(tiny.folder, folder / "model")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["teachers"][0]["model"] = "./model"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def load(project: Path, *overrides: str) -> Recipe:
    return Recipe.load(project / "recipe.yaml", overrides)


def keys(recipe: Recipe) -> dict[str, str]:
    return {step.node.id: step.key for step in address(nodes_for(recipe), recipe.seed)}


def changed(project: Path, *overrides: str) -> set[str]:
    """The nodes whose keys the overrides change."""
    before, after = keys(load(project)), keys(load(project, *overrides))
    assert before.keys() == after.keys()
    return {node for node in before if before[node] != after[node]}


def test_the_nodes_stand_in_the_order_of_the_run(project):
    nodes = nodes_for(load(project))
    assert [node.id for node in nodes] == NODES
    assert in_order(nodes) == nodes


def test_each_node_reads_what_it_should(project):
    reads = {node.id: dict(node.inputs) for node in nodes_for(load(project))}
    assert reads["teacher"] == {"model": "base", "data": "data"}
    assert reads["teach"] == {"data": "data", "engine": "teacher:onnx", "model": "teacher"}
    assert reads["curate"] == {"data": "data", "answers": "teach"}
    assert reads["student"] == {"student": "student:carved", "data": "data", "answers": "curate"}
    assert reads["shipped"] == {"model": "student", "data": "data"}
    # The baseline has never seen the teacher: only which layers and tokens are kept comes from there.
    assert reads["baseline:carved"] == {"model": "base", "like": "student:carved"}
    assert reads["baseline"] == {"model": "baseline:carved", "data": "data"}
    assert reads["teacher:same"] == {"model": "teacher", "data": "data"}
    assert reads["evaluate"] == {"data": "data"} | {
        role: f"score:{role}" for role in ("floor", "teacher", "teacher_same", "baseline", "student", "shipped")
    }
    assert reads["bundle"] == {
        "data": "data",
        "model": "shipped",
        "evaluate": "evaluate",
        "card": "card",
        "answers": "curate",
    }
    roles = ("floor", "teacher", "teacher_same", "baseline", "student", "shipped")
    # What ships is the bundle, so that is asked; what the student answers is known.
    answered = {"source": "student", "answers": "score:student", "evaluate": "evaluate"}
    assert reads["parity"] == {**answered, "bundle": "bundle", "data": "data"}
    assert reads["report"]["parity"] == "parity"
    assert reads["card"] == {"data": "data", "evaluate": "evaluate"}
    assert {f"score_{role}": f"score:{role}" for role in roles}.items() <= reads["report"].items()


@pytest.mark.parametrize("override", ["student.carve.heads=1", "student.carve.channels=64"])
def test_a_width_is_checked_on_the_model_before_it_is_fitted(project, override):
    nodes = in_order(nodes_for(load(project, override)))
    ids = [node.id for node in nodes]
    assert [name for name in ids if name not in NODES] == ["student:check"]
    assert ids.index("base") < ids.index("student:check") < ids.index("teacher")
    before, after = keys(load(project)), keys(load(project, override))
    assert {name for name in NODES if before[name] == after[name]} >= {"base", "teacher", "teach"}
    assert before["student:carved"] != after["student:carved"]


HEALED = {"student:text", "student:healed", "baseline:healed"}


def test_what_is_healed_stands_between_carved_and_taught(project):
    (project / "wiki.txt").write_text("Some text.")
    nodes = in_order(nodes_for(load(project, "student.heal={text: wiki.txt}")))
    ids, reads = [node.id for node in nodes], {node.id: node.inputs for node in nodes}
    assert {*ids} - {*NODES} == HEALED
    assert ids.index("student:text") < ids.index("teacher")
    assert reads["student:text"] == {"model": "base", "data": "data"}
    assert reads["student:healed"] == {"student": "student:carved", "teacher": "teacher", "data": "data"}
    assert reads["student"] == {"student": "student:healed", "data": "data", "answers": "curate"}
    # What the teacher learned must not reach the baseline: it is healed by the model that nobody taught.
    assert reads["baseline:healed"] == {"student": "baseline:carved", "teacher": "base", "data": "data"}
    assert reads["baseline"] == {"model": "baseline:healed", "data": "data"}
    assert reads["card"]["healed"] == reads["report"]["student_healed"] == "student:healed"
    assert all(node.sources == {"text:0": project / "wiki.txt"} for node in nodes if node.id in HEALED)


def test_healing_makes_nothing_anew_that_stands_before_it(project):
    before, after = keys(load(project)), keys(load(project, "student.heal={}"))
    changed = {node for node in before if before[node] != after[node]}
    taught = {"student", "shipped", "baseline", "score:student", "score:shipped", "score:baseline"}
    assert changed == taught | {"evaluate", "card", "bundle", "parity", "report"}


def test_the_content_of_the_text_counts_and_where_it_lies_does_not(project):
    def made(name: str, text: str) -> dict[str, str]:
        (project / name).write_text(text)
        return keys(load(project, f"student.heal={{text: {name}}}"))

    one, renamed, other = made("one.txt", "One."), made("same.txt", "One."), made("one.txt", "Another.")
    told = {"card", "bundle", "parity", "report"}
    assert {node for node in one if one[node] != renamed[node]} == told
    assert {node for node in one if one[node] != other[node]} >= HEALED
    assert one["student:carved"] == other["student:carved"]


def test_without_a_baseline_or_a_fitted_teacher_the_student_is_healed_by_what_it_was_cut_from(project):
    nodes = graph(project, "student.heal={}", "train.baseline=false", "teachers.0.fit=null")
    assert "baseline:healed" not in nodes
    assert nodes["student:healed"].inputs["teacher"] == "base"


def test_terms_that_a_text_without_answers_cannot_have_are_refused_before_anything_runs(project, monkeypatch):
    (project / "losses_of_text.py").write_text(
        "class Stored:\n    needs = frozenset({'stored'})\n\n"
        "    def loss(self, view):\n        return view.logits.sum()\n"
    )
    monkeypatch.syspath_prepend(project)
    with pytest.raises(BadInput, match=r"student\.heal\.objective: Stored needs stored probabilities"):
        graph(project, "student.heal.objective={custom: 'losses_of_text:Stored'}")
    objective = "student.heal.objective={kind: hidden, student_layers: [12]}"
    with pytest.raises(
        BadInput, match=r"student\.heal\.objective: hidden\.student_layers: the student has no layer 12"
    ):
        graph(project, objective, "student.carve.layers=12")


def test_a_student_of_another_model_has_a_base_of_its_own(project):
    shutil.copytree(project / "model", project / "other")
    recipe = load(project, "student={model: ./other, chat_template: plain}", "train.objective={kind: span}")
    nodes = in_order(nodes_for(recipe))
    ids, reads = [node.id for node in nodes], {node.id: dict(node.inputs) for node in nodes}
    assert [name for name in ids if name not in NODES] == ["student:base", "student:pair"]
    assert ids.index("student:pair") < ids.index("teacher")
    settings = {node.id: node.settings for node in nodes}
    assert (settings["student:base"].chat_template, settings["base"].chat_template) == ("plain", "chatml")
    assert (settings["student:carved"].layers, settings["student:carved"].vocabulary) == (None, "keep")
    assert reads["student:pair"] == {"teacher": "base", "student": "student:base"}
    given = {"model": "student:base", "data": "data", "answers": "curate", "teacher": "teacher"}
    assert reads["student:carved"] == given
    assert reads["student"] == {"student": "student:carved", "data": "data", "answers": "curate", "teacher": "teacher"}
    # The same start as the student's: what it shows beside the student is the teaching.
    assert reads["baseline:carved"] == {"model": "student:base", "like": "student:carved"}
    assert reads["teacher:onnx"] == {"model": "teacher"}
    assert str(project) not in json.dumps(recipe.shareable())


def test_a_width_of_another_model_is_checked_on_that_model(project):
    shutil.copytree(project / "model", project / "other")
    nodes = graph(project, "student={model: ./other, carve: {heads: 1}}", "train.objective={kind: text}")
    assert nodes["student:check"].inputs == {"model": "student:base"}
    assert nodes["student:carved"].settings.vocabulary == "trim"


def test_a_change_of_the_students_model_teaches_nothing_anew(project):
    shutil.copytree(project / "model", project / "other")
    recipe = load(project, "student={model: ./other}", "train.objective={kind: text}")
    before = keys(recipe)
    (project / "other" / "generation_config.json").write_text("{}")
    after = keys(recipe)
    assert {name for name in before if before[name] == after[name]} == {
        *("data", "base", "teacher", "teacher:onnx", "teach", "curate", "teacher:same"),
        *("score:floor", "score:teacher", "score:teacher_same"),
    }


def test_a_teacher_may_write_in_pytorch_without_an_export(project):
    nodes = graph(project, "teach.engine=transformers")
    assert "teacher:onnx" not in nodes
    assert nodes["teach"].inputs == {"data": "data", "model": "teacher"}


def test_a_student_of_another_model_is_healed_by_that_model(project):
    shutil.copytree(project / "model", project / "other")
    student = "student={model: ./other, carve: {layers: 1}, heal: {}}"
    nodes = graph(project, student, "train.objective={kind: text}")
    assert nodes["student:text"].inputs["model"] == "student:base"
    assert nodes["student:healed"].inputs == {"student": "student:carved", "teacher": "student:base", "data": "data"}
    assert nodes["baseline:healed"].inputs == {"student": "baseline:carved", "teacher": "student:base", "data": "data"}
    assert nodes["student"].inputs["student"] == "student:healed"
    assert nodes["student"].inputs["teacher"] == "teacher"


def test_a_student_of_another_model_may_mark(project):
    shutil.copytree(project / "model", project / "other")
    nodes = graph(project, "student={model: ./other, head: tags}")
    assert {"student:base", "student:marks", "student:pair"} <= set(nodes)
    # What it learns goes by the words alone, so any two vocabularies will do.
    assert [term.kind for term in nodes["student:pair"].settings.objective] == ["text"]
    assert nodes["student"].inputs["teacher"] == "teacher"


def test_terms_of_spans_need_answers_so_nothing_is_healed_by_them(project, monkeypatch):
    (project / "losses_of_spans.py").write_text(
        "class OfSpans:\n    needs = frozenset({'online_spans'})\n\n"
        "    def loss(self, view):\n        return view.logits.sum()\n"
    )
    monkeypatch.syspath_prepend(project)
    with pytest.raises(BadInput, match=r"student\.heal\.objective: OfSpans goes by spans of answers"):
        graph(project, "student.heal.objective={custom: 'losses_of_spans:OfSpans'}")


def test_both_sides_of_a_same_engine_comparison_are_made_alike(project):
    nodes = {node.id: node for node in nodes_for(load(project))}
    assert nodes["teacher:same"].settings == nodes["shipped"].settings
    assert nodes["score:teacher_same"].settings == nodes["score:shipped"].settings


def test_rows_are_read_where_they_choose_the_shipped_values(project):
    graph = {node.id: node for node in nodes_for(load(project, "compress.algorithm=gptq"))}
    assert graph["shipped"].inputs["data"] == graph["teacher:same"].inputs["data"] == "data"
    pruned = {node.id: node for node in nodes_for(load(project, "compress.sparsity={pattern: '2:4'}"))}
    assert pruned["shipped"].inputs["data"] == "data"
    assert (
        "data" not in {node.id: node for node in nodes_for(load(project, "compress.algorithm=rtn"))}["shipped"].inputs
    )
    # A teacher that is timed and not asked runs the same format with whatever values are soonest made.
    timed = {
        node.id: node
        for node in nodes_for(load(project, "compress.algorithm=gptq", "evaluate.quantised_teacher=false"))
    }
    assert "data" not in timed["teacher:same"].inputs
    ships, same = timed["shipped"].settings, timed["teacher:same"].settings
    assert same == ships.model_copy(update={"algorithm": "rtn"})


def test_what_ships_recovers_from_its_rounding_where_the_recipe_asks(project):
    assert "student:recovered" not in graph(project)
    nodes = graph(project, "compress.recover={epochs: 2}", "student.heal={}")
    recovered, shipped = nodes["student:recovered"], nodes["shipped"]
    assert recovered.inputs == {"student": "student", "carved": "student:healed", "data": "data", "answers": "curate"}
    assert recovered.settings.optimisation.epochs == 2
    assert shipped.inputs == {"model": "student:recovered"}
    # What it is rounded to is what it ships as, and how it got there is no matter to the export.
    assert recovered.settings.ships == shipped.settings == nodes["teacher:same"].settings
    assert nodes["score:student"].inputs["model"] == "student"
    assert nodes["report"].inputs["student_recovered"] == "student:recovered"
    one, other = (keys(load(project, f"compress.recover={{epochs: {n}}}")) for n in (1, 2))
    assert {node for node in one if one[node] != other[node]} == {
        *("student:recovered", "shipped", "score:shipped", "evaluate", "card", "bundle", "parity", "report")
    }
    tags = graph(project, "compress.recover={}", "student.head=tags")["student:recovered"]
    assert tags.inputs["teacher"] == "teacher"
    assert tags.settings.head == "tags"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("compress.precision=int8", AFTER_COMPRESS),
        ("compress.block_size=64", AFTER_COMPRESS),
        ("train.epochs=5", {"student", "score:student", *AFTER_COMPRESS} - {"teacher:same", "score:teacher_same"}),
        ("train.baseline_epochs=1", {"baseline", "score:baseline", "evaluate", "card", "bundle", "parity", "report"}),
        ("evaluate.gates.exact_match.min=0.1", {"evaluate", "card", "bundle", "parity", "report"}),
        ("evaluate.quantised_teacher=false", {"teacher:same", "score:teacher_same", "evaluate"}),
        ("evaluate.machine_usd_per_hour=0.1", {"evaluate", "card", "bundle", "parity", "report"}),
        ("teachers.0.price={input_usd: 0.27, output_usd: 1.1}", {"evaluate", "card", "bundle", "parity", "report"}),
        ("bundle.version=2.0.0", {"card", "bundle", "parity", "report"}),
        ("teach.top_logits=8", set(NODES) - {"data", "base", "teacher", "teacher:onnx", "teacher:same"}
            - {"score:floor", "score:teacher", "score:teacher_same"}),
        ("teachers.0.fit.epochs=1", set(NODES) - {"data", "base", "score:floor"}),
        ("seed=8", set(NODES)),
    ],
)  # fmt: skip
def test_a_setting_changes_the_keys_of_what_it_shapes_and_no_others(project, override, expected):
    # The whole recipe goes into the card, the lineage of the bundle and the report.
    assert changed(project, override) == expected | {"card", "bundle", "parity", "report"}


def test_the_name_of_the_teacher_is_told_and_shapes_nothing(project):
    assert changed(project, "teachers.0.name=other") == {"card", "bundle", "parity", "report"}


def test_moving_the_project_changes_no_key(project, tmp_path):
    moved = Path(shutil.copytree(project, tmp_path / "elsewhere" / "deeper"))
    assert keys(load(moved)) == keys(load(project))


@pytest.mark.parametrize("file", ["data/train.jsonl", "data/pool.jsonl", "data/test.jsonl", "ticket.schema.json"])
def test_the_content_of_a_file_counts(project, file):
    before = keys(load(project))
    text = (project / file).read_text()
    (project / file).write_text(text + "\n")
    after = keys(load(project))
    assert after["data"] != before["data"]
    assert after["base"] == before["base"]


def test_the_content_of_the_teachers_folder_counts(project):
    before = keys(load(project))
    (project / "model" / "generation_config.json").write_text("{}")
    after = keys(load(project))
    assert after["base"] != before["base"]
    assert after["data"] == before["data"]


def test_no_setting_holds_a_path_of_this_machine(project):
    (project / "wiki.txt").write_text("Some text.")
    recipe = load(project, "student.heal={text: wiki.txt}")
    for step in address(nodes_for(recipe), recipe.seed):
        text = json.dumps(step.provenance.settings)
        assert str(project) not in text, step.node.id
        assert not [value for value in _texts(step.provenance.settings) if value.startswith(("/", "~"))], step.node.id


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def test_a_teacher_that_is_not_fitted_is_used_as_it_is(project):
    nodes = {node.id: node for node in nodes_for(load(project, "teachers.0.fit=null"))}
    assert "teacher" not in nodes
    assert all(
        nodes[node].inputs["model"] == "base" for node in ("teacher:onnx", "teach", "student:carved", "score:teacher")
    )
    assert "teacher" not in nodes["report"].inputs


def test_without_a_baseline_nothing_of_it_is_made(project):
    nodes = {node.id: node for node in nodes_for(load(project, "train.baseline=false"))}
    assert not [node for node in nodes if "baseline" in node]
    assert "baseline" not in nodes["evaluate"].inputs
    assert "baseline" not in nodes["report"].inputs


def graph(project: Path, *overrides: str) -> dict[str, Node]:
    return {node.id: node for node in nodes_for(load(project, *overrides))}


def write_suite(project: Path, *texts: str) -> str:
    rows = [{"id": str(i), "input": text, "output": {"intent": "other"}} for i, text in enumerate(texts)]
    (project / "regression.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "evaluate.regression=regression.jsonl"


def test_the_shipped_model_answers_the_regression_suite(project):
    nodes = graph(project, write_suite(project, "What about it?"))
    assert nodes["regression:answers"].inputs == {"model": "shipped", "data": "regression"}
    assert nodes["regression"].sources == {"suite": project / "regression.jsonl"}
    beside = {"regression": "regression", "regression_answers": "regression:answers"}
    assert beside.items() <= nodes["evaluate"].inputs.items()
    assert nodes["evaluate"].settings.gates["regression_failures"][0].max == 0


def test_another_regression_row_trains_nothing_anew(project):
    before = keys(load(project, write_suite(project, "What about it?")))
    after = keys(load(project, write_suite(project, "What about it?", "And that?")))
    changed = {node for node in before if before[node] != after[node]}
    assert changed == {"regression", "regression:answers", "evaluate", "card", "bundle", "parity", "report"}


def test_a_broken_regression_suite_is_refused_before_anything_runs(project):
    with pytest.raises(BadInput, match=r"regression\.jsonl:2: the same text as .*regression\.jsonl:1"):
        graph(project, write_suite(project, "What about it?", "what  ABOUT it?"))


@pytest.fixture
def released(tiny_onnx, project) -> Path:
    task = make_task(load(project).task).describe()
    parts = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}, "evidence": {}}
    write_bundle(project / "released", model_folder=tiny_onnx, task=task, **parts)
    return project / "released"


def test_the_released_bundle_is_measured_beside_the_others(project, released):
    nodes = graph(project, "evaluate.released=released")
    assert nodes["released"].sources == {"bundle": released}
    assert nodes["score:released"].inputs == {"model": "released", "data": "data"}
    assert nodes["score:released"].settings == nodes["score:shipped"].settings
    assert nodes["evaluate"].inputs["released"] == "score:released"
    with pytest.raises(BadInput, match="is not a bundle"):
        graph(project, "evaluate.released=data")


ENDPOINT = "evaluate.judge={model: big, base_url: 'http://127.0.0.1:9/v1', against: baseline}"


def test_an_endpoint_judges_the_answers_that_are_there(project):
    nodes = graph(project, ENDPOINT)
    assert nodes["judge"].inputs == {"data": "data", "ours": "score:shipped", "theirs": "score:baseline"}
    assert nodes["evaluate"].inputs["judged"] == "judge"
    with pytest.raises(BadInput, match="this recipe makes no baseline"):
        graph(project, ENDPOINT, "train.baseline=false")


def test_a_judge_on_this_machine_is_fetched_or_comes_out_of_a_bundle(project, released):
    folder = graph(project, "evaluate.judge={model: ./model}")
    assert folder["judge:model"].stage is Fetch
    assert (folder["judge"].settings.engine, folder["judge"].settings.judge.model) == ("transformers", "model")
    bundle = graph(project, "evaluate.judge={model: ./released}")
    assert bundle["judge:model"].stage is OpenBundle
    assert bundle["judge"].settings.engine == "onnxruntime-genai"
    assert bundle["judge"].inputs["model"] == "judge:model"
    assert str(project) not in bundle["judge"].settings.model_dump_json()


def test_a_recipe_without_a_pool_is_refused_before_anything_runs(project):
    with pytest.raises(BadInput, match=r"data\.pool is missing"):
        nodes_for(load(project, "data.pool=null"))


def test_soft_targets_that_nobody_keeps_are_refused_before_anything_runs(project):
    with pytest.raises(BadInput, match="top_logits 0 keeps none"):
        nodes_for(load(project, "teach.top_logits=0"))
    with pytest.raises(BadInput, match="span needs the teacher's probabilities"):
        nodes_for(load(project, "teach.top_logits=0", "train.objective={kind: span}"))
    nodes_for(load(project, "teach.top_logits=0", "train.objective={kind: uld, logits: online}"))
    nodes_for(load(project, "teach.top_logits=0", "train.objective={kind: text}"))
    nodes_for(load(project, "teach.top_logits=0", "train.objective={kind: forward_kl, logits: online}"))


@pytest.mark.parametrize(
    ("objective", "runs"),
    [
        ("[{kind: forward_kl}, {kind: text}]", False),
        ("{kind: jsd, logits: online}", True),
        ("[{kind: text}, {kind: hidden}]", True),
        ("{kind: attention}", True),
        ("{kind: span}", True),
        ("{kind: uld, logits: online}", True),
    ],
)
def test_the_teacher_runs_beside_the_student_where_a_term_needs_it(project, objective, runs):
    taken = {node.id: node.inputs for node in nodes_for(load(project, f"train.objective={objective}"))}
    assert taken["student"].get("teacher") == ("teacher" if runs else None)
    unfitted = load(project, f"train.objective={objective}", "teachers.0.fit=null")
    taken = {node.id: node.inputs for node in nodes_for(unfitted)}
    assert taken["student"].get("teacher") == ("base" if runs else None)


def test_own_answers_that_no_term_can_judge_are_refused_before_anything_runs(project):
    with pytest.raises(BadInput, match=r"train\.on_policy: no term of train\.objective"):
        nodes_for(load(project, "train.on_policy={}"))
    objective = "train.objective=[{kind: reverse_kl, logits: online}, {kind: text}]"
    with pytest.raises(BadInput, match=r"fraction 1 leaves no given answers, which text of train\.objective need"):
        nodes_for(load(project, "train.on_policy={fraction: 1}", objective))
    nodes = graph(project, "train.on_policy={temperature: 0.7}", objective)
    assert nodes["student"].settings.on_policy == OnPolicy(fraction=0.5, temperature=0.7)
    assert nodes["student"].inputs["teacher"] == "teacher"
    assert changed(project, "train.on_policy={fraction: 0}") == {
        "student",
        "score:student",
        *(AFTER_COMPRESS - {"teacher:same", "score:teacher_same"}),
    }


def test_spans_cannot_be_had_of_own_answers_so_they_judge_none(project):
    with pytest.raises(BadInput, match=r"train\.on_policy: no term of train\.objective"):
        nodes_for(load(project, "train.on_policy={}", "train.objective={kind: span, logits: online}"))
    objective = "train.objective=[{kind: reverse_kl, logits: online}, {kind: uld, logits: online}]"
    with pytest.raises(BadInput, match="fraction 1 leaves no given answers, which uld"):
        nodes_for(load(project, "train.on_policy={fraction: 1}", objective))


def test_a_layer_that_the_student_will_not_have_is_refused_before_anything_runs(project):
    with pytest.raises(BadInput, match=r"hidden\.student_layers: the student has no layer 12: it has 12 layers"):
        nodes_for(load(project, "train.objective={kind: hidden, student_layers: [12]}", "student.carve.layers=12"))


def test_a_users_own_term_is_checked_with_the_recipe_and_its_source_counts(project, monkeypatch):
    module = project / "losses_of_ours.py"
    module.write_text(
        "class Sure:\n    needs = frozenset()\n\n    def __init__(self, margin):\n        self.margin = margin\n\n"
        "    def loss(self, view):\n        return view.logits.max(-1).values.mean() * -self.margin\n"
    )
    monkeypatch.syspath_prepend(project)
    objective = "train.objective=[{kind: text}, {custom: 'losses_of_ours:Sure', margin: 1.0, weight: 0.5}]"
    recipe = load(project, objective)
    before = keys(recipe)
    module.write_text(module.read_text().replace("-self", "- self"))
    behind = {"student", "shipped", "score:student", "score:shipped", "evaluate", "card", "bundle", "parity", "report"}
    after = keys(recipe)
    assert {node for node in before if before[node] != after[node]} == behind
    assert {node for node in before if before[node] != keys(load(project, objective.replace("1.0", "2.0")))[node]} >= {
        "student"
    }
    for changed_, message in (
        ("Sure", "train.objective: losses_of_ours:Surely: is no class"),
        ("margin", "train.objective: losses_of_ours:Sure: missing a required argument: 'margin'"),
        ("losses_of_ours:", "there is no module losses_of_oursly"),
    ):
        new = changed_[:-1] + "ly:" if changed_.endswith(":") else changed_ + "ly"
        with pytest.raises(BadInput, match=message.replace(".", r"\.")):
            nodes_for(load(project, objective.replace(changed_, new)))


def test_a_callback_is_checked_with_the_recipe_and_its_source_counts_for_the_student_alone(project, monkeypatch):
    module = project / "watch_of_ours.py"
    module.write_text("class Ends:\n    def on_step(self, moment):\n        return None\n")
    monkeypatch.syspath_prepend(project)
    recipe = load(project, "train.callbacks=[{custom: 'watch_of_ours:Ends'}]")
    before = keys(recipe)
    module.write_text(module.read_text().replace("None", "1"))
    after = keys(recipe)
    behind = {"student", "shipped", "score:student", "score:shipped", "evaluate", "card", "bundle", "parity", "report"}
    assert {node for node in before if before[node] != after[node]} == behind
    for callback, message in (
        ("{custom: 'watch_of_ours:End'}", r"train\.callbacks\.0: watch_of_ours:End: is no class"),
        ("{custom: 'watch_of_ours:Ends', at: 3}", "Ends: got an unexpected keyword argument 'at'"),
    ):
        with pytest.raises(BadInput, match=message):
            nodes_for(load(project, f"train.callbacks=[{callback}]"))


def test_terms_that_compare_rows_need_labels_and_no_teacher(project):
    shutil.copytree(project / "model", project / "other")
    supervised = "train.objective=[{kind: text}, {kind: supervised_contrastive, weight: 0.2}]"
    for head in ("language", "tags"):
        objective = graph(project, supervised, f"student.head={head}")["student"].settings.objective
        assert [term.kind for term in objective] == ["text", "supervised_contrastive"]
    whole = "train={objective: [{kind: text}, {kind: supervised_contrastive}]}"
    alone = graph(project, "teachers=[]", "data.pool=null", "student={model: ./other}", whole)["student"]
    assert [term.kind for term in alone.settings.objective] == ["text", "supervised_contrastive"]
    with pytest.raises(BadInput, match="supervised_contrastive compares rows by their labels, and an answer of this"):
        nodes_for(load(project, supervised, "task={kind: qa}"))
    with pytest.raises(BadInput, match=r"`student\.head: tags` learns its labels by `kind: text`"):
        load(project, "train.objective={kind: contrastive}", "student.head=tags")
    with pytest.raises(BadInput, match=r"contrastive goes by the words of answers, and this text has none"):
        load(project, "student.heal={objective: [{kind: contrastive}]}")


def test_a_teacher_that_is_not_there_is_refused(project):
    with pytest.raises(BadInput, match="is not installed"):
        nodes_for(load(project, "teachers.0.model=wheel:llm-nothing-of-the-kind"))


def test_a_users_own_figure_is_checked_with_the_recipe_and_its_source_counts(project, monkeypatch):
    module = project / "figures_of_ours.py"
    module.write_text("def brief(reference, answer, text):\n    return len(text) < 80\n")
    monkeypatch.syspath_prepend(project)
    recipe = load(project, "evaluate.metrics=['figures_of_ours:brief']")
    before = keys(recipe)
    module.write_text(module.read_text().replace("80", "40"))
    after = keys(recipe)
    assert {node for node in before if before[node] != after[node]} == {
        "evaluate",
        "card",
        "bundle",
        "parity",
        "report",
    }
    for path, message in (
        ("figures_of_ours:short", "evaluate.metrics.0: figures_of_ours:short: is no function"),
        ("nowhere.figures:brief", "evaluate.metrics.0: nowhere.figures:brief: there is no module nowhere"),
    ):
        with pytest.raises(BadInput) as error:
            nodes_for(load(project, f"evaluate.metrics=['{path}']"))
        assert str(error.value) == message
    with pytest.raises(BadInput, match=r"evaluate\.metrics\.0 is \"figures_of_ours\.brief\""):
        load(project, "evaluate.metrics=['figures_of_ours.brief']")


@pytest.mark.parametrize("name", ["exact_mach", "field_f1_kep", "weight_saving", "latency_p50", "peak_rss_mb"])
def test_a_misspelt_gate_is_refused_before_anything_runs(project, name):
    with pytest.raises(BadInput, match=f"evaluate.gates.{name} is no figure") as error:
        nodes_for(load(project, f"evaluate.gates.{name}.min=0.5"))
    assert "did you mean" in (error.value.hint or "")


@pytest.mark.parametrize("name", ["exact_match", "field_f1_kept", "latency_p50_ms", "weights_bytes", "same_text"])
def test_a_gate_on_a_figure_that_there_is_or_may_be_is_taken(project, name):
    assert nodes_for(load(project, f"evaluate.gates.{name}.max=1.0"))


def test_a_search_takes_the_place_of_the_export(project):
    """What is not tried is as `compress` says, and the teacher is held against in that form."""
    plain, found = (
        {node.id: node for node in nodes_for(load(project, "compress.block_size=64", *more))}
        for more in ((), ("compress.search={minimise: [size], candidates: {precision: [int8]}}",))
    )
    search = found["shipped"].settings
    assert found["shipped"].stage is Search
    assert (search.ships.block_size, search.search.minimise) == (64, ["size"])
    assert found["shipped"].inputs == {"model": "student", "data": "data"}
    assert found["report"].inputs["front"] == "shipped"
    assert found["teacher:same"] == plain["teacher:same"]
    assert "front" not in plain["report"].inputs


def test_a_bound_on_no_figure_is_refused_before_anything_runs(project):
    with pytest.raises(BadInput, match=r"compress\.search\.subject_to\.exact_mach is no figure") as error:
        nodes_for(load(project, "compress.search={subject_to: {exact_mach: {max_drop: 0.02}}}"))
    assert error.value.hint == "did you mean `exact_match`?"
    none = "{precision: [int4], algorithm: [k_quant]}"
    with pytest.raises(BadInput, match=r"compress\.search\.candidates: nothing"):
        nodes_for(load(project, "compress.symmetric=false", f"compress.search={{candidates: {none}}}"))
    with pytest.raises(BadInput, match=r"compress\.search\.subject_to\.exact_match\.confidence"):
        load(project, "compress.search={subject_to: {exact_match: {max_drop: 0.02, confidence: 0.9}}}")


@pytest.mark.parametrize(
    ("how", "name", "extra"),
    [
        ("compress.runtime=llama.cpp", "llama.cpp", "llamacpp"),
        ("compress.runtime=openvino", "openvino", "openvino"),
        ("compress.search={candidates: {runtime: [onnxruntime-genai, llama.cpp]}}", "llama.cpp", "llamacpp"),
    ],
)
def test_a_runtime_that_is_not_there_or_cannot_run_the_student_is_refused(project, how, name, extra, monkeypatch):
    monkeypatch.setattr("slmops.engines.find_spec", lambda _: None)
    with pytest.raises(BadInput, match=f"{name} is not installed") as error:
        nodes_for(load(project, how))
    assert f"slmops[{extra}]" in error.value.hint
    monkeypatch.setattr("slmops.engines.find_spec", lambda name: name)
    assert nodes_for(load(project, how))
    if name == "openvino":
        assert nodes_for(load(project, how, "student.head=tags"))
        return
    with pytest.raises(BadInput, match="runs no student that marks"):
        nodes_for(load(project, how, "student.head=tags"))


def test_by_how_many_a_model_is_trained_changes_no_key(project):
    shared = ("train.processes=2", "train.accumulate=2", "train.fsdp={}")
    one, two = load(project, "train.accumulate=2"), load(project, *shared)
    by_two = {node.id: node.settings for node in nodes_for(two)}
    assert by_two["student"].processes == by_two["baseline"].processes == 2
    ours, theirs = ({step.node.id: step.key for step in address(nodes_for(of), 7)} for of in (one, two))
    assert [ours[name] for name in ("student", "baseline")] == [theirs[name] for name in ("student", "baseline")]


SECOND = "teachers=[{name: local, model: ./model}, {name: big, model: ./model, fit: {epochs: 1}}]"
ROUTED = "teach.combine={how: routed, by: source, routes: {mail: local, chat: big}}"
BY_LABEL = "teach.combine={how: routed, by: label, routes: {refund: big}, otherwise: local}"
OF_THE_SECOND = ["base:2", "teachers:check", "teacher:2", "teacher:onnx:2", "teach:1", "teach:2"]


def with_sources(project: Path, *sources: str) -> None:
    """Let the pool's rows come from these sources in turn; an empty one is none."""
    rows = [json.loads(line) for line in (project / "data/pool.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        if source := sources[i % len(sources)]:
            row["source"] = source
    (project / "data/pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_second_teacher_answers_beside_the_first(project):
    nodes = graph(project, SECOND)
    assert sorted(nodes) == sorted([*NODES, *OF_THE_SECOND])
    ids = [node.id for node in in_order(list(nodes.values()))]
    assert ids.index("teachers:check") < ids.index("teacher"), "it is cheap, and the first to refuse"
    assert nodes["teachers:check"].inputs == {"model_1": "base", "model_2": "base:2"}
    assert nodes["teacher:2"].inputs == {"model": "base:2", "data": "data"}
    assert nodes["teach:2"].inputs == {"data": "data", "engine": "teacher:onnx:2", "model": "teacher:2"}
    answers = {"answers_1": "teach:1", "engine_1": "teacher:onnx", "answers_2": "teach:2", "engine_2": "teacher:onnx:2"}
    assert nodes["teach"].inputs == {"data": "data", **answers}
    # The student is cut from the first, and the tables compare with it.
    assert nodes["student:carved"].inputs == {"model": "teacher", "data": "data", "answers": "curate"}
    assert nodes["score:teacher"].inputs["model"] == "teacher"
    assert nodes["report"].inputs["teacher_2"] == "teacher:2"


def test_what_is_learned_of_the_answers_is_decided_behind_the_teachers(project):
    assert changed(project, "teach.curate.max_imbalance=5") & {*NODES[:6]} == {"curate"}
    assert "teacher" in changed(project, "data.screen.near_duplicates=0.8"), "other rows, another teacher"
    nodes = graph(project, SECOND, "teach.curate.agreement=0.8", "teach.combine={weights: {big: 2.5}}")
    assert nodes["curate"].inputs == {
        "data": "data",
        "answers": "teach",
        "answers_1": "teach:1",
        "answers_2": "teach:2",
    }
    assert (nodes["curate"].settings.weights, nodes["curate"].settings.agreement) == ([1.0, 2.5], 0.8)
    assert nodes["report"].inputs["curate"] == "curate"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teach.curate.agreement=0.8", "is for several answers to every row, which vote"),
        ("teach.curate.near_duplicates=0.9", "teach.curate.near_duplicates: answers of this task are no free text"),
        ("teach.curate={rebalance: downsample, max_imbalance: null}", "needs `max_imbalance`"),
    ],
)
def test_checks_that_answers_of_this_recipe_cannot_have_are_refused(project, override, message):
    with pytest.raises(BadInput, match=message):
        nodes_for(load(project, override))


def test_several_teachers_may_write_in_pytorch(project):
    nodes = graph(project, SECOND, "teach.engine=transformers")
    assert not [node for node in nodes if node.startswith("teacher:onnx")]
    assert nodes["teach:2"].inputs == {"data": "data", "model": "teacher:2"}
    assert (nodes["teach"].inputs["engine_1"], nodes["teach"].inputs["engine_2"]) == ("teacher", "teacher:2")
    assert nodes["teach"].settings.engine == nodes["teach:1"].settings.engine == "transformers"


def test_what_the_first_teacher_made_is_used_again_when_a_second_comes(project):
    alone, beside = keys(load(project, "teachers=[{model: ./model}]")), keys(load(project, SECOND))
    for node in ("data", "base", "teacher", "teacher:onnx", "teacher:same", "score:teacher"):
        assert beside[node] == alone[node], node
    assert beside["teach:1"] == alone["teach"]
    assert beside["teach"] != alone["teach"]


def test_weights_are_taken_by_name_and_names_shape_nothing(project):
    weighted = graph(project, SECOND, "teach.combine={weights: {big: 2.5}}")
    assert weighted["teach"].settings.weights == [1.0, 2.5]
    assert graph(project, SECOND)["teach"].settings.weights == [1.0, 1.0]
    before = keys(load(project, SECOND, "teach.combine={weights: {big: 2.5}}"))
    after = keys(load(project, SECOND.replace("big", "great"), "teach.combine={weights: {great: 2.5}}"))
    told = {"teachers:check", "card", "bundle", "parity", "report"}
    assert {node for node in before if before[node] != after[node]} == told


def test_rows_are_routed_by_a_field_before_anything_is_trained(project):
    with_sources(project, "mail", "chat")
    nodes = graph(project, SECOND, ROUTED)
    ids = [node.id for node in in_order(list(nodes.values()))]
    assert ids.index("route:1") < ids.index("teacher")
    for n in (1, 2):
        assert nodes[f"route:{n}"].sources == {"pool": project / "data/pool.jsonl"}
        assert nodes[f"route:{n}"].settings.teacher_number == n
        assert nodes[f"teach:{n}"].inputs["data"] == f"route:{n}"
    assert nodes["route:2"].settings.routes == {"mail": 1, "chat": 2}
    assert nodes["teach"].inputs["rows_2"] == "route:2"


def test_rows_are_routed_by_what_the_first_teacher_answers_before_the_second_is_trained(project):
    nodes = graph(project, SECOND, BY_LABEL)
    ids = [node.id for node in in_order(list(nodes.values()))]
    assert "route:1" not in nodes
    assert nodes["teach:1"].inputs["data"] == "data"
    assert nodes["route:2"].inputs == {"data": "data", "answers": "teach:1"}
    assert ids.index("route:2") < ids.index("teacher:2")
    assert nodes["teach:2"].inputs["data"] == "route:2"


def test_rows_without_a_teacher_and_teachers_without_rows_are_refused_before_anything_runs(project):
    with_sources(project, "mail", "fax", "")
    with pytest.raises(BadInput, match=r"pool\.jsonl:2: `source` is 'fax'") as error:
        nodes_for(load(project, SECOND, ROUTED))
    assert "pool.jsonl:3: no `source`" in str(error.value)
    with_sources(project, "mail")
    with pytest.raises(BadInput, match=r"no row of .*pool\.jsonl to the teacher big"):
        nodes_for(load(project, SECOND, ROUTED))
    with pytest.raises(BadInput, match=r"rows of data\.sample have a text alone"):
        nodes_for(load(project, SECOND, ROUTED, "data={sample: {}}"))


def test_labels_that_an_answer_has_not_are_refused_before_anything_runs(project):
    with pytest.raises(BadInput, match="an answer of this task has no label"):
        nodes_for(load(project, SECOND, BY_LABEL, "task.label=null"))
    labels = "task={kind: classification, labels: [refunds, other]}"
    with pytest.raises(BadInput, match=r"teach\.combine\.routes\.refund is no label of the task") as error:
        nodes_for(load(project, SECOND, BY_LABEL, labels))
    assert error.value.hint == "did you mean `refunds`?"


def test_labels_are_calibrated_before_the_bundle_and_fields_are_not(project):
    nodes = {node.id: node for node in nodes_for(load(project, "task={kind: classification, labels: [refund, other]}"))}
    assert nodes["calibrate"].inputs == {"data": "data", "model": "shipped", "answers": "score:shipped"}
    assert nodes["bundle"].inputs["calibrate"] == "calibrate"
    assert "calibrate" not in {node.id for node in nodes_for(load(project))}


@pytest.mark.parametrize(
    "term", ["{kind: jsd, logits: online}", "{kind: hidden}", "{kind: attention}", "{kind: span, logits: online}"]
)
def test_several_teachers_do_not_run_beside_the_student(project, term):
    with pytest.raises(BadInput, match="runs the teacher beside the student, and there are 2") as error:
        nodes_for(load(project, SECOND, f"train.objective={term}"))
    assert "`logits: stored`" in (error.value.hint or "")


def test_terms_that_need_probabilities_are_told_to_the_check_of_the_teachers(project):
    assert graph(project, SECOND)["teachers:check"].settings.stored == ["forward_kl"]
    assert graph(project, SECOND, "train.objective={kind: text}")["teachers:check"].settings.stored == []
    spans = "train.objective=[{kind: span}, {kind: text}]"
    assert graph(project, SECOND, spans)["teachers:check"].settings.stored == ["span"]
    assert graph(project, SECOND, "student.head=tags")["teachers:check"].settings.stored == []


PRICE = "teachers.0.price={input_usd: 1, output_usd: 1}"
REMOTE = "{name: big, kind: endpoint, base_url: 'https://api.example.com/v1', model: big-1}"


def test_an_endpoint_has_no_model_here_so_the_student_is_cut_from_its_own(project):
    made = graph(project, f"teachers=[{REMOTE}]", "student={model: ./model}")
    local = {"base", "teacher", "teacher:onnx", "teacher:same", "score:teacher", "score:teacher_same"}
    assert made.keys() == ({*NODES} | {"student:base"}) - local
    reads = {name: dict(node.inputs) for name, node in made.items()}
    assert reads["teach"] == {"data": "data", "model": "student:base"}
    assert reads["student:carved"] == {"model": "student:base", "data": "data", "answers": "curate"}
    assert reads["student"] == {"student": "student:carved", "data": "data", "answers": "curate"}
    assert reads["baseline:carved"] == {"model": "student:base", "like": "student:carved"}
    assert reads["evaluate"] == {"data": "data"} | {
        role: f"score:{role}" for role in ("floor", "baseline", "student", "shipped")
    }
    assert [term.kind for term in made["student"].settings.objective] == ["text"]


@pytest.mark.parametrize(
    "objective", ["{kind: forward_kl}", "{kind: reverse_kl, logits: online}", "{kind: hidden}", "{kind: span}"]
)
def test_terms_that_need_more_than_words_are_refused_for_an_endpoint(project, objective):
    with pytest.raises(BadInput, match="an endpoint gives no more"):
        graph(project, f"teachers=[{REMOTE}]", "student={model: ./model}", f"train.objective={objective}")


def test_what_an_endpoint_may_cost_makes_nothing_anew_before_the_card(project):
    given = (f"teachers=[{REMOTE}]", "student={model: ./model}")
    before = keys(load(project, *given))
    after = keys(load(project, *given, "teach.budget={requests: 9}", "teachers.0.concurrency=2", PRICE))
    assert {node for node in before if before[node] != after[node]} == {"card", "bundle", "parity", "report"}
