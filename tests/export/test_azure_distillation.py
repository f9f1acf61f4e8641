"""A job of Azure ML has the form that Azure's own package wants, the rows of the recipe, and no key."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slmops.errors import BadInput
from slmops.export.azure_distillation import DistillationJob
from slmops.export.azure_rows import TASK_TYPES
from slmops.pipeline.plan.rows import prepared
from slmops.recipe import Recipe
from tests.export.azure_package import CAPTURED, capture, faults

STUDENT = "azureml://registries/azureml/models/Phi-3.5-mini-instruct/versions/6"
KNOWN: dict[str, Any] = json.loads(CAPTURED.read_text(encoding="utf-8"))["schemas"]
RECIPE = """
name: asked
task: {{kind: {kind}, instruction: Answer well., max_answer_tokens: 40}}
data: {{train: train.jsonl, test: test.jsonl, pool: pool.jsonl, split: {{validation: 0.5, stratify: false}},
        screen: {{contaminated: null, overlap: null, near_duplicates: null}}}}
teachers: [{{name: big, kind: endpoint, base_url: "https://big.example/v1", model: big-1, key_env: BIG_KEY}}]
student: {{model: "wheel:none"}}
"""
OUTPUTS = {"qa": "in June", "maths": 4, "summarisation": "Short.", "conversation": "Gladly."}
TALK = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]

Load = Callable[..., Recipe]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a recipe of a kind with 140 labelled rows and 10 of the pool, and reads it with overrides."""

    def text(kind: str, n: int, side: str) -> Any:
        asked = f"What of {side} case {n}?"
        return [*TALK, {"role": "user", "content": asked}] if kind == "conversation" else asked

    def write(kind: str, *overrides: str, labelled: int = 140) -> Recipe:
        for side, count in (("train", labelled), ("test", 5), ("pool", 10)):
            rows = [{"input": text(kind, n, side)} for n in range(count)]
            if side != "pool":
                rows = [
                    row | {"output": OUTPUTS.get(kind, ("neutral", "entailment")[n % 2])} for n, row in enumerate(rows)
                ]
            (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(kind=kind))
        return Recipe.load(tmp_path / "recipe.yaml", overrides)

    return write


def export(recipe: Recipe, folder: Path) -> tuple[dict[str, Any], Path, list[str]]:
    out = folder / "out"
    job = DistillationJob(recipe, STUDENT, out)
    with prepared(recipe, folder / "home") as data:
        _, notes = job.write(data)
    return yaml.safe_load((out / "job.yaml").read_text(encoding="utf-8")), out, notes


def chats(path: Path) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", TASK_TYPES)
def test_a_job_is_what_azure_reads(load, tmp_path, kind):
    written, out, _ = export(load(kind, "teachers.0.top_p=0.9"), tmp_path)
    assert not faults(written, "DistillationJobSchema", KNOWN)
    assert not faults(yaml.safe_load((out / "connection.yaml").read_text()) | {"api_key": "k"}, CONNECTION, KNOWN)
    assert written["data_generation_task_type"] == TASK_TYPES[kind]
    settings = written["teacher_model_settings"]["inference_parameters"]
    assert settings == {"temperature": 0.0, "max_tokens": 40, "top_p": 0.9}
    for name in ("training_data", "validation_data"):
        assert (out / written[name]["path"]).is_file()


CONNECTION = "ServerlessConnectionSchema"


def test_what_azure_does_not_know_is_found(load, tmp_path):
    """The check of the form finds what Azure's own finds; see `test_the_package_reads_it`."""
    written, _, _ = export(load("qa"), tmp_path)
    assert faults(written | {"nonsense": 1}, "DistillationJobSchema", KNOWN) == ["nonsense is unknown"]
    assert faults({**written, "data_generation_task_type": "CLASSIFY"}, "DistillationJobSchema", KNOWN)
    connection = written["teacher_model_endpoint_connection"] | {"type": "telepathy"}
    assert faults({**written, "teacher_model_endpoint_connection": connection}, "DistillationJobSchema", KNOWN)
    del written["student_model"]
    assert faults(written, "DistillationJobSchema", KNOWN) == ["student_model is missing"]


@pytest.mark.parametrize("kind", TASK_TYPES)
def test_the_package_reads_it(load, tmp_path, kind, monkeypatch):
    package = pytest.importorskip("azure.ai.ml")
    monkeypatch.setenv("BIG_KEY", "sk-not-to-be-seen")
    _, out, _ = export(load(kind), tmp_path)
    job = package.load_job(out / "job.yaml")
    sent = job._to_rest_object().as_dict()["properties"]
    assert sent["properties"]["azureml.teacher_model.endpoint_name"] == "big"
    assert not any("key" in name for name in json.loads(sent["properties"]["azureml.connection_information"]))
    assert sent["fineTuningDetails"]["model"]["uri"] == STUDENT
    with pytest.raises(Exception, match="api_key"):
        package.load_connection(out / "connection.yaml")
    connection = package.load_connection(out / "connection.yaml", params_override=[{"api_key": "k"}])
    assert (connection.name, connection.endpoint) == ("big", "https://big.example")


def test_what_was_written_down_of_the_package_is_what_it_says():
    pytest.importorskip("azure.ai.ml")
    assert capture() == KNOWN


def test_the_rows_are_those_that_the_teacher_and_validation_see_and_none_of_the_test(load, tmp_path):
    recipe = load("qa")
    _, out, notes = export(recipe, tmp_path)
    train, validation = chats(out / "train.jsonl"), chats(out / "validation.jsonl")
    assert (len(train), len(validation)) == (80, 70)
    asked = [messages[-1]["content"] for messages in (*train, *validation)]
    assert sorted(asked) == sorted(
        [f"What of train case {n}?" for n in range(140)] + [f"What of pool case {n}?" for n in range(10)]
    )
    for messages in (*train, *validation):
        assert [message["role"] for message in messages] == ["system", "user"]
        assert messages[0]["content"] == "Answer well."
    assert "in June" not in (out / "train.jsonl").read_text()
    assert any("Azure's teacher answers every row itself" in note for note in notes)


def test_a_conversation_ends_with_its_answer_and_is_left_out_without_one(load, tmp_path):
    _, out, notes = export(load("conversation", "teachers.0.system=You are Ada."), tmp_path)
    train = chats(out / "train.jsonl")
    assert len(train) == 70
    for messages in train:
        assert [one["role"] for one in messages] == ["system", "user", "assistant", "user", "assistant"]
        assert messages[0]["content"] == "You are Ada.\n\nAnswer well."
        assert messages[-1]["content"] == "Gladly."
    assert "10 conversations without an answer are left out" in notes[0]
    assert notes[0] in (out / "README.md").read_text()


def test_what_is_private_has_placeholders(load, tmp_path):
    recipe = load("qa", 'teachers.0.system="Cases of zora.quist@canary-mail.example."')
    _, out, notes = export(recipe, tmp_path)
    assert chats(out / "train.jsonl")[0][0]["content"].startswith("Cases of [EMAIL_1].")
    assert not any("zora" in path.read_text() for path in out.iterdir())
    assert any("the student learns placeholders" in note for note in notes)


def test_no_key_is_written_and_the_command_names_its_variable(load, tmp_path, monkeypatch):
    monkeypatch.setenv("BIG_KEY", "sk-not-to-be-seen")
    _, out, _ = export(load("qa"), tmp_path)
    texts = {path.name: path.read_text() for path in out.iterdir()}
    assert sorted(texts) == ["README.md", "connection.yaml", "job.yaml", "train.jsonl", "validation.jsonl"]
    assert not any(os.environ["BIG_KEY"] in text for text in texts.values())
    assert '--set api_key="$BIG_KEY"' in texts["README.md"]
    assert "api_key" not in yaml.safe_load(texts["connection.yaml"])
    assert "key" not in texts["job.yaml"]


REFUSED = [
    (
        "classification",
        (),
        "distils no task of kind classification; it has nli, qa, maths, summarisation, conversation",
    ),
    ("generation", (), "distils no task of kind generation"),
    ("qa", ("teachers=[{model: wheel:none}]",), "the teacher local runs here"),
    ("qa", ("teachers.0.base_url=http://localhost:8000/v1",), "where Azure cannot reach it"),
    ("qa", ("teachers.0.temperature=1.5",), "temperature 1.5, and Azure takes 0 to 1"),
    ("qa", ('teachers.0.name="my teacher"',), "cannot be that of a connection"),
    ("qa", ('teachers.0.key_env="A;B"',), "is no name of an environment variable"),
    ("qa", ("task.instruction=null",), "Azure wants a system message first"),
]


@pytest.mark.parametrize(("kind", "overrides", "told"), REFUSED)
def test_what_azure_would_refuse_is_refused_here_and_nothing_is_written(load, tmp_path, kind, overrides, told):
    with pytest.raises(BadInput, match=re.escape(told)):
        export(load(kind, *overrides), tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "fewest"), [("qa", 65), ("maths", 40)])
def test_azure_takes_no_file_of_few_rows(load, tmp_path, kind, fewest):
    with pytest.raises(
        BadInput, match=rf"validation\.jsonl has {fewest - 1} rows, and Azure takes .* from {fewest} on"
    ):
        export(load(kind, labelled=2 * fewest - 2), tmp_path)
    assert not (tmp_path / "out").exists()
    written, out, _ = export(load(kind, labelled=2 * fewest), tmp_path)
    assert len(chats(out / written["validation_data"]["path"])) == fewest


def test_a_student_is_a_model_of_azure_and_the_folder_is_empty(load, tmp_path):
    recipe = load("qa")
    with pytest.raises(BadInput, match="no id of a model in a registry of Azure"):
        DistillationJob(recipe, "microsoft/Phi-4-mini-instruct", tmp_path / "out")
    with pytest.raises(BadInput, match="not empty"):
        DistillationJob(recipe, STUDENT, tmp_path)
