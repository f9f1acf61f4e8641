"""Rows as others write them: messages, prompts with completions, objects out of several columns, sets of the Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slmops.data.read import read_rows
from slmops.errors import BadInput
from slmops.recipe.hub_rows import hub_file
from slmops.tasks import input_reader

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "Where is it?"}
ANSWERED = {"role": "assistant", "content": "On its way."}
PAIR = {"id": "train-1", "input": "Where is it?", "output": "On its way."}


def read(folder: Path, *records: Any, kind: str = "generation", **named: Any) -> list[dict[str, Any]]:
    path = folder / "rows.json"
    path.write_text(json.dumps(records))
    return [row for _, row in read_rows(path, "train", reader=input_reader(kind), **named)]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [ASKED, ANSWERED]},
        {"messages": [SYSTEM, ASKED, ANSWERED]},
        {"messages": [ASKED], "output": "On its way."},
        {"prompt": "Where is it?", "completion": "On its way."},
        {"prompt": [SYSTEM, ASKED], "completion": [ANSWERED]},
        {"input": "Where is it?", "output": "On its way.", "messages": "of no interest", "prompt": 1},
    ],
)
def test_forms_say_the_same(tmp_path, record):
    assert read(tmp_path, record, instruction="Be brief.") == [PAIR]


def test_a_talk_is_an_input_of_a_conversation_alone(tmp_path):
    talk = [ASKED, ANSWERED, {"role": "user", "content": "When?"}]
    rows = read(tmp_path, {"messages": [*talk, {"role": "assistant", "content": "Today."}]}, kind="conversation")
    assert (json.loads(rows[0]["input"]), rows[0]["output"]) == (talk, "Today.")
    for messages in ([*talk, ANSWERED], [{**SYSTEM, "content": "Be long."}, ASKED, ANSWERED]):
        with pytest.raises(BadInput, match=r"row 1: `input` is .* it must be a text") as error:
            read(tmp_path, {"messages": messages}, instruction="Be brief.")
        assert "task.instruction, word for word" in (error.value.hint or "")


def test_of_a_pool_the_answers_are_not_read(tmp_path):
    rows = read(tmp_path, {"messages": [ASKED, ANSWERED]}, {"prompt": "b", "completion": "c"}, output=None)
    assert [row.get("output", row["input"]) for row in rows] == ["Where is it?", "b"]


@pytest.mark.parametrize("given", ["a text", [], [{"role": "user"}], {"role": "user", "content": "a"}])
def test_messages_that_are_none_are_named(tmp_path, given):
    with pytest.raises(BadInput, match=r"rows.json: row 2: `messages` must be a list of messages"):
        read(tmp_path, {"messages": [ASKED, ANSWERED]}, {"messages": given})


def test_several_columns_make_an_object_and_a_dot_leads_into_one(tmp_path):
    record = {"q": "Who?", "passage": "Ada.", "answers": {"text": ["Ada"]}, "a.b": 1, "kind": "x", "city": None}
    named = {"input": {"question": "q", "context": "passage"}, "output": "answers.text"}
    assert read(tmp_path, record, kind="qa", **named) == [
        {"id": "train-1", "input": "Context: Ada.\nQuestion: Who?", "output": ["Ada"]}
    ]
    (row,) = read(tmp_path, record, input="q", output={"intent": "kind", "city": "city", "n": "a.b"})
    assert row["output"] == {"intent": "x", "n": 1}
    with pytest.raises(BadInput, match="row 1: no `e` or `f`; there is `q`") as error:
        read(tmp_path, record, input="q", output={"a": "e", "b": "f"})
    assert error.value.hint == "data.output names the column"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"input": "a"}', "must hold a list of objects"),
        ('[{"input": "a", "output": "b"}, 7]', "row 2: not a JSON object: 7"),
        ("[]", "has no rows"),
    ],
)
def test_a_broken_json_file_is_named(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(BadInput) as error:
        list(read_rows(path, "train"))
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def classes(path: Path, *labels: int) -> Path:
    """A Parquet file as the library `datasets` writes a column of classes."""
    names = {"info": {"features": {"label": {"names": ["late", "other"], "_type": "ClassLabel"}, "text": {}}}}
    table = pa.table({"text": [f"t{i}" for i in range(len(labels))], "label": list(labels)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), path)
    return path


def test_numbers_of_classes_are_told_by_name(tmp_path):
    path = classes(tmp_path / "a.parquet", 1, 0)
    assert [row["output"] for _, row in read_rows(path, "train", input="text", output="label")] == ["other", "late"]
    with pytest.raises(BadInput, match="row 2: no `label`"):
        list(read_rows(classes(path, 0, -1), "train", input="text", output="label"))
    with pytest.raises(BadInput, match="row 1: `label` is 2, and the file names 2 classes"):
        list(read_rows(classes(path, 2), "train", input="text", output="label"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the Hub with one set in two configurations."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "datasets--org--set"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    here = home / "snapshots" / "abc"
    for name in ("plain/train-00000-of-00001.parquet", "plain/test-00000-of-00001.parquet", "big/train-1.parquet"):
        classes(here / name, 0)
    classes(here / "big" / "train-2.parquet", 0)
    return here


def test_a_set_of_the_hub_is_found_in_the_cache(cache):
    train = cache / "plain" / "train-00000-of-00001.parquet"
    assert hub_file("hub:org/set/plain:train") == train
    assert hub_file("hub:org/set/plain@main:train") == train
    assert hub_file("train.jsonl") == "train.jsonl"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hub:org/set", "hub:OWNER/NAME:SPLIT"),
        ("hub:org/../set:train", "hub:OWNER/NAME:SPLIT"),
        ("hub:org/set/plain:validation", "no file is of the split validation of org/set; it takes one, there: test-00"),
        ("hub:org/set/big:train", "2 files are of the split train of org/set; it takes one, there: train-1.parquet"),
        ("hub:org/other:train", "not in the local cache of the Hub: hf download --repo-type dataset org/other"),
    ],
)
def test_what_is_not_there_is_said(cache, reference, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        hub_file(reference)
