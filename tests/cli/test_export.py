"""`slmops export`: a group that writes files and names them."""

from __future__ import annotations

import json

import pytest

STUDENT = "azureml://registries/azureml/models/Phi-3.5-mini-instruct/versions/6"
RECIPE = """
name: asked
task: {kind: qa, instruction: Answer well.}
data: {train: train.jsonl, test: test.jsonl, pool: pool.jsonl, split: {validation: 0.5, stratify: false}}
teachers: [{name: big, kind: endpoint, base_url: "https://big.example/v1", model: big-1, key_env: BIG_KEY}]
student: {model: "wheel:none"}
"""


@pytest.fixture
def project(tmp_path):
    for side, count in (("train", 130), ("test", 3), ("pool", 3)):
        rows = [{"input": f"{side} {'x' * n} {n * 7919}?", "output": "yes"} for n in range(count)]
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_the_files_are_named_on_stdout_and_what_to_know_on_stderr(slmops, project):
    command = ("export", "azure-distillation", "recipe.yaml", "--student", STUDENT)
    unscreened = "data.screen={contaminated: null, near_duplicates: null}"
    done = slmops(*command, "--out", "job", "--set", unscreened)
    assert done.returncode == 0, done.stderr
    names = ["train.jsonl", "validation.jsonl", "job.yaml", "connection.yaml", "README.md"]
    assert done.stdout.splitlines() == [f"job/{name}" for name in names]
    assert all((project / "job" / name).is_file() for name in names)
    assert "next: job/README.md" in done.stderr
    assert not (project / ".slmops").exists(), "an export leaves no home behind"
    again = slmops(*command, "--out", "job")
    assert (again.returncode, again.stdout) == (2, "")
    assert "job exists already and is not empty" in again.stderr


def test_a_task_that_azure_has_not_is_refused_with_those_it_has(slmops, project):
    command = ("export", "azure-distillation", "recipe.yaml", "--student", STUDENT, "--out", "job")
    done = slmops(*command, "--set", "task={kind: classification}")
    assert done.returncode == 2
    assert "it has nli, qa, maths, summarisation, conversation" in done.stderr
