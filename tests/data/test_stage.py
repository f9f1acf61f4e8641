"""The data stage from a recipe to the files of its artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.data.stage import PrepareRegression, prepare_data_node
from slmops.errors import BadInput
from slmops.pipeline.stage import Context
from slmops.recipe import parse_recipe
from slmops.recipe.settings import Settings
from slmops.samples.tickets import tickets
from slmops.tasks import from_description

SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["status", "other"]}, "order": {"type": "string"}},
    "required": ["intent"],
    "additionalProperties": False,
}


def recipe(folder: Path, **parts: Any) -> Any:
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    task = parts.pop("task", {"kind": "extraction", "schema": "schema.json"})
    plain = {"name": "x", "task": task, "teachers": [{"model": "wheel:none"}], **parts}
    return parse_recipe(plain, folder=folder)


def prepare(folder: Path, name: str = "out", seed: int = 7, **parts: Any) -> tuple[Path, dict[str, Any]]:
    """Run the stage as the pipeline does; its folder and figures."""
    node = prepare_data_node(recipe(folder, **parts))
    out = folder / name
    out.mkdir()
    # The settings make the journey to another process as plain JSON.
    settings = type(node.settings).model_validate(node.settings.model_dump(mode="json"))
    metrics = node.stage().run(node.sources, settings, Context(out=out, work=folder, seed=seed))
    return out, dict(metrics)


def labelled(prefix: str, count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"{prefix}{i}", "input": f"{prefix} message {i}", "output": {"intent": ["status", "other"][i % 2]}}
        for i in range(count)
    ]


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    write_jsonl(tmp_path / "train.jsonl", labelled("train", 20))
    write_jsonl(tmp_path / "test.jsonl", labelled("test", 6))
    pool = [{"input": f"pool message {i % 10}"} for i in range(12)]
    write_jsonl(tmp_path / "pool.jsonl", [*pool, {"input": "Test  message 3"}, {"input": "train message 0"}])
    return {"train": "train.jsonl", "pool": "pool.jsonl", "test": "test.jsonl"}


def test_files_become_checked_rows(tmp_path: Path, data: dict[str, str]) -> None:
    out, metrics = prepare(tmp_path, data=data)
    assert metrics == {
        "train_rows": 17,
        "validation_rows": 3,
        "pool_rows": 10,
        "test_rows": 6,
        "dropped_rows": 4,
    }
    train, validation = read_jsonl(out / "train.jsonl"), read_jsonl(out / "validation.jsonl")
    assert sorted(row["id"] for row in train + validation) == sorted(f"train{i}" for i in range(20))
    assert all(set(row) == {"id", "input"} for row in read_jsonl(out / "pool.jsonl"))
    assert [row["detail"] for row in read_jsonl(out / "dropped.jsonl")] == [
        "repeats an earlier row",
        "repeats an earlier row",
        "also in test",
        "also in train",
    ]
    summary = json.loads((out / "data.json").read_text())
    assert summary["rows"] == {"train": 17, "validation": 3, "pool": 10, "test": 6}
    assert summary["dropped"] == {"pool: exact duplicate": 3, "pool: contaminated": 1}
    assert summary["labels"]["test"] == {"other": 3, "status": 3}
    task = from_description(json.loads((out / "task.json").read_text()))
    assert task.parse('{"intent":"status"}') == {"intent": "status"}


def test_test_rows_never_reach_training(tmp_path: Path, data: dict[str, str]) -> None:
    test = labelled("test", 6)
    leaked = [{**row, "id": f"leak{i}", "input": row["input"].upper()} for i, row in enumerate(test)]
    write_jsonl(tmp_path / "train.jsonl", [*labelled("train", 20), *leaked])
    out, metrics = prepare(tmp_path, data=data)
    assert metrics["dropped_rows"] == 4 + len(leaked)
    ids = {row["id"] for side in ("train", "validation") for row in read_jsonl(out / f"{side}.jsonl")}
    assert not ids & {row["id"] for row in leaked}
    assert read_jsonl(out / "test.jsonl") == test


def test_rows_like_those_of_test_and_validation_never_reach_training(tmp_path: Path, data: dict[str, str]) -> None:
    long = "the parcel that I have been waiting for since last week has not come yet, and I need it"
    rows = [{**row, "input": f"{'abcdefghijklmnopqrst'[i] * 9} {long}"} for i, row in enumerate(labelled("train", 20))]
    write_jsonl(tmp_path / "train.jsonl", [*labelled("train", 20), {**rows[0], "id": "near"}])
    write_jsonl(tmp_path / "test.jsonl", [*labelled("test", 6), {**rows[1], "id": "held"}])
    pool = [{"id": f"pool{i}", "input": row["input"]} for i, row in enumerate(rows[2:5])]
    write_jsonl(tmp_path / "pool.jsonl", [*pool, {"id": "other", "input": "something else"}])
    out, _ = prepare(tmp_path, data=data)
    assert [row["id"] for row in read_jsonl(out / "pool.jsonl")] == ["other"]
    dropped = {row["id"]: (row["side"], row["reason"], row["like"]) for row in read_jsonl(out / "dropped.jsonl")}
    assert dropped == {"near": ("train", "contaminated", "held")} | {
        row["id"]: ("pool", "contaminated", "held") for row in pool
    }
    off = {"contaminated": None, "overlap": None, "near_duplicates": None}
    out, metrics = prepare(tmp_path, "off", data={**data, "screen": off})
    assert (metrics["pool_rows"], metrics["dropped_rows"]) == (4, 0)


def test_training_rows_like_those_of_validation_are_dropped(tmp_path: Path, data: dict[str, str]) -> None:
    rows = labelled("train", 20)
    twins = [{**row, "id": f"twin{i}", "input": f"{row['input']}!"} for i, row in enumerate(rows)]
    write_jsonl(tmp_path / "train.jsonl", [*rows, *twins])
    out, metrics = prepare(tmp_path, data=data)
    held = {row["input"].strip("!") for row in read_jsonl(out / "validation.jsonl")}
    assert not held & {row["input"].strip("!") for row in read_jsonl(out / "train.jsonl")}
    dropped = [row for row in read_jsonl(out / "dropped.jsonl") if row["side"] == "train"]
    assert {row["detail"] for row in dropped} == {"like a row of validation: 100% of their shingles are the same"}
    assert metrics["train_rows"] + metrics["validation_rows"] + len(dropped) == 40


def test_the_same_files_and_seed_give_the_same_bytes(tmp_path: Path, data: dict[str, str]) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = content(prepare(tmp_path, "a", data=data)[0])
    assert content(prepare(tmp_path, "b", data=data)[0]) == first
    assert content(prepare(tmp_path, "c", seed=8, data=data)[0]) != first


def test_where_files_lie_does_not_enter_the_settings(tmp_path: Path, data: dict[str, str]) -> None:
    node = prepare_data_node(recipe(tmp_path, data=data))
    assert str(tmp_path) not in node.settings.model_dump_json()
    assert set(node.sources) == {"train", "pool", "test", "schema"}
    assert node.id == "data"


def test_csv_with_other_columns_and_labels_from_the_rows(tmp_path: Path) -> None:
    lines = [f"message {i},{['red', 'blue'][i % 2]}" for i in range(10)]
    (tmp_path / "train.csv").write_text("\n".join(["text,colour", *lines]))
    (tmp_path / "test.csv").write_text("text,colour\nunseen, Blue\n")
    out, metrics = prepare(
        tmp_path,
        task={"kind": "classification"},
        data={"train": "train.csv", "test": "test.csv", "input": "text", "output": "colour"},
    )
    assert metrics["pool_rows"] == 0
    assert json.loads((out / "task.json").read_text())["labels"] == ["blue", "red"]
    assert [row["output"] for row in read_jsonl(out / "test.jsonl")] == ["blue"]


def test_inputs_of_several_parts_become_texts(tmp_path: Path) -> None:
    pairs = [{"premise": f"It rains {i}.", "hypothesis": "It is wet."} for i in range(12)]
    rows = [{"input": pair, "output": ["entailment", "Neutral"][i % 2]} for i, pair in enumerate(pairs)]
    write_jsonl(tmp_path / "train.jsonl", rows[:10])
    write_jsonl(tmp_path / "test.jsonl", rows[10:])
    files = {"train": "train.jsonl", "test": "test.jsonl"}
    out, _ = prepare(tmp_path, task={"kind": "nli"}, data=files)
    assert read_jsonl(out / "test.jsonl")[1] == {
        "id": "test-2",
        "input": "Premise: It rains 11.\nHypothesis: It is wet.",
        "output": "neutral",
    }
    with pytest.raises(BadInput, match=r'train.jsonl:1: `input` is {"premise": .*; it must be a text$'):
        prepare(tmp_path, "plain", task={"kind": "generation"}, data=files)


def test_several_references_stay_a_list(tmp_path: Path) -> None:
    rows = [{"input": f"question {i}?", "output": ["one", "1"] if i % 2 else "two "} for i in range(12)]
    write_jsonl(tmp_path / "train.jsonl", rows[:10])
    write_jsonl(tmp_path / "test.jsonl", rows[10:])
    out, _ = prepare(tmp_path, task={"kind": "qa"}, data={"train": "train.jsonl", "test": "test.jsonl"})
    assert [row["output"] for row in read_jsonl(out / "test.jsonl")] == ["two", ["one", "1"]]


def test_test_rows_of_one_label_are_refused(tmp_path: Path) -> None:
    rows = [{"input": f"text {i}", "output": ["a", "b"][i % 2]} for i in range(10)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    write_jsonl(tmp_path / "test.jsonl", [{"input": f"unseen {i}", "output": "a"} for i in range(5)])
    with pytest.raises(BadInput, match="every test row has the label 'a'"):
        prepare(tmp_path, task={"kind": "classification"}, data={"train": "train.jsonl", "test": "test.jsonl"})


def test_the_sample_makes_its_rows(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "recipes"
    task = {"kind": "extraction", "schema": str(folder / "ticket.schema.json")}
    data = {"sample": {"train": 60, "pool": 30, "test": 40}}
    out, metrics = prepare(tmp_path, task=task, data=data)
    assert (metrics["train_rows"], metrics["validation_rows"]) == (47, 13)  # each of 13 intents is in both
    assert (metrics["pool_rows"], metrics["test_rows"], metrics["dropped_rows"]) == (30, 40, 0)
    assert set(prepare_data_node(recipe(tmp_path, task=task, data=data)).sources) == {
        "tickets.py",
        "tickets.yaml",
        "schema",
    }
    assert all("output" not in row for row in read_jsonl(out / "pool.jsonl"))


def test_the_sample_can_hold_out_its_validation_side(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "recipes"
    task = {"kind": "extraction", "schema": str(folder / "ticket.schema.json")}
    sample = {"train": 60, "pool": 30, "test": 40}
    plain, _ = prepare(tmp_path, "plain", task=task, data={"sample": sample})
    chosen, _ = prepare(tmp_path, "chosen", task=task, data={"sample": {**sample, "held_out": "validation"}})
    rows = {out: list(read_jsonl(out / "test.jsonl")) for out in (plain, chosen)}
    assert [row["input"] for row in rows[plain]] == [row["input"] for row in tickets("test", 40, 7)]
    assert [row["input"] for row in rows[chosen]] == [row["input"] for row in tickets("validation", 40, 7)]
    for name in ("train.jsonl", "validation.jsonl", "pool.jsonl"):
        assert (plain / name).read_bytes() == (chosen / name).read_bytes()


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("train.jsonl", "broken", "train.jsonl:21: not JSON"),
        ("test.jsonl", '{"id": "test0", "input": "b", "output": {}}', "test.jsonl:7: id 'test0' was given before"),
        ("train.jsonl", '{"input": "b", "output": {"intent": "refund"}}', "train.jsonl:21: intent: 'refund' is not"),
        ("pool.jsonl", '{"text": "b"}', "pool.jsonl:15: no `input`"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, data: dict[str, str], file: str, line: str, message: str) -> None:
    with (tmp_path / file).open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(BadInput) as error:
        prepare(tmp_path, data=data)
    assert message in str(error.value)


def test_sets_that_cannot_be_trained_on_are_refused(tmp_path: Path, data: dict[str, str]) -> None:
    write_jsonl(tmp_path / "train.jsonl", labelled("train", 20)[::2])
    with pytest.raises(BadInput, match="labels in test that training never saw: other"):
        prepare(tmp_path, "a", data=data)
    write_jsonl(tmp_path / "test.jsonl", labelled("test", 6)[::2])
    with pytest.raises(BadInput, match="every training row has the label 'status'"):
        prepare(tmp_path, "b", data=data)
    write_jsonl(tmp_path / "train.jsonl", labelled("train", 2))
    with pytest.raises(BadInput, match="2 labelled rows are too few"):
        prepare(tmp_path, "c", data=data)
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(BadInput, match=r"train\.jsonl: has no rows"):
        prepare(tmp_path, "d", data=data)


def test_a_task_that_is_none_is_refused_before_anything_runs(tmp_path: Path, data: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="a label is given twice"):
        prepare_data_node(recipe(tmp_path, data=data, task={"kind": "classification", "labels": ["a", "a"]}))
    made = recipe(tmp_path, data=data)
    (tmp_path / "schema.json").write_text('{"type": "object"')
    with pytest.raises(BadInput, match=r"schema\.json: not JSON"):
        prepare_data_node(made)


def suite(folder: Path, *inputs: str, output: Any = None) -> dict[str, str]:
    rows = [{"id": f"r{i}", "input": text, "output": output or {"intent": "other"}} for i, text in enumerate(inputs)]
    write_jsonl(folder / "regression.jsonl", rows)
    return {"regression": "regression.jsonl"}


def test_regression_rows_never_reach_training(tmp_path: Path, data: dict[str, str]) -> None:
    evaluate = suite(tmp_path, "TRAIN  message 3", "pool message 4", "test message 1", "something new")
    out, metrics = prepare(tmp_path, data=data, evaluate=evaluate)
    assert metrics["test_rows"] == 6, "a test row may be in the suite too"
    kept = {row["input"] for side in ("train", "validation", "pool") for row in read_jsonl(out / f"{side}.jsonl")}
    assert not kept & {"train message 3", "pool message 4"}
    assert len(kept) == 19 + 9
    details = [row["detail"] for row in read_jsonl(out / "dropped.jsonl")]
    assert details.count("also in the regression suite") == 2


def test_only_regression_rows_that_training_would_see_make_the_data_anew(tmp_path: Path, data: dict[str, str]) -> None:
    def settings(*inputs: str) -> str:
        node = prepare_data_node(recipe(tmp_path, data=data, evaluate=suite(tmp_path, *inputs)))
        assert set(node.sources) == {"train", "pool", "test", "schema"}
        return node.settings.model_dump_json()

    plain = prepare_data_node(recipe(tmp_path, data=data)).settings.model_dump_json()
    assert settings("something new") == plain
    assert settings("something new", "and more") == plain
    assert settings("pool message 4") != plain


def test_rows_that_are_made_are_kept_out_too(tmp_path: Path) -> None:
    task = {"kind": "extraction", "schema": str(Path(__file__).parents[2] / "recipes" / "ticket.schema.json")}
    sample = {"sample": {"train": 60, "pool": 30, "test": 40}}
    first, _ = prepare(tmp_path, "first", task=task, data=sample)
    known = read_jsonl(first / "pool.jsonl")[0]["input"]
    again, metrics = prepare(tmp_path, "again", task=task, data=sample, evaluate=suite(tmp_path, known))
    assert metrics["dropped_rows"] == 1
    assert known not in {row["input"] for row in read_jsonl(again / "pool.jsonl")}


def regression(folder: Path, out: Path) -> list[dict[str, Any]]:
    made = folder / "made"
    made.mkdir()
    context = Context(out=made, work=folder, seed=7)
    metrics = PrepareRegression().run({"suite": folder / "regression.jsonl", "data": out}, Settings(), context)
    rows = read_jsonl(made / "test.jsonl")
    assert metrics == {"rows": len(rows)}
    assert (made / "task.json").read_bytes() == (out / "task.json").read_bytes()
    return rows


def test_the_suite_becomes_rows_to_be_answered(tmp_path: Path, data: dict[str, str]) -> None:
    out, _ = prepare(tmp_path, data=data)
    suite(tmp_path, "a", "b", output='{"intent":"status"}')
    rows = regression(tmp_path, out)
    assert [(row["id"], row["output"]) for row in rows] == [("r0", {"intent": "status"}), ("r1", {"intent": "status"})]


def test_an_answer_that_the_task_refuses_is_named(tmp_path: Path, data: dict[str, str]) -> None:
    out, _ = prepare(tmp_path, data=data)
    suite(tmp_path, "a", output={"intent": "refund"})
    with pytest.raises(BadInput, match=r"regression\.jsonl:1: intent: 'refund'"):
        regression(tmp_path, out)


def test_groups_stay_together_and_copies_are_of_training_rows_alone(tmp_path: Path) -> None:
    rows = [
        {"text": f"Where would order {i} be?", "intent": ["status", "other"][i % 2], "no": str(i), "who": i // 4}
        for i in range(48)
    ]
    output = {"intent": "intent", "order": "no"}
    for name, part in (("train", rows[:40]), ("test", rows[40:])):
        write_jsonl(tmp_path / f"{name}.jsonl", part)
    data = {"train": "train.jsonl", "test": "test.jsonl", "input": "text", "output": output}
    data |= {"split": {"validation": 0.2, "group": "who"}, "augment": {"typos": 0.5}}
    out, figures = prepare(tmp_path, data=data | {"screen": {"contaminated": None, "overlap": None}})
    train, validation = read_jsonl(out / "train.jsonl"), read_jsonl(out / "validation.jsonl")
    assert not {row["who"] for row in train} & {row["who"] for row in validation}
    assert (figures["augmented_rows"], len(train), len(validation)) == (16, 48, 8)
    assert json.loads((out / "data.json").read_text())["augmented"] == {"train: typos": 16}
    assert train[-1]["id"].endswith("~typos")
    assert train[-1]["output"]["order"] in train[-1]["input"]
    assert not any("~" in row["id"] for row in [*validation, *read_jsonl(out / "test.jsonl")])
