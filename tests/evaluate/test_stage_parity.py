"""A run whose bundle does not answer as its student ends with exit code 3 and places nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel

import slmops.pipeline.plan
from slmops.bundle import write_bundle
from slmops.data.read import write_jsonl
from slmops.evaluate.stage import Compare, CompareSettings, Score, ScoreSettings
from slmops.evaluate.stage_parity import CheckParity, CheckParitySettings
from slmops.pipeline.run import RunResult, run
from slmops.pipeline.stage import Context, Node
from slmops.recipe import Recipe
from slmops.recipe.settings import Settings
from tests.tiny_task import TASK

RECIPE = {
    "name": "tiny",
    "task": {"kind": "qa"},
    "data": {"train": "a.jsonl", "pool": "a.jsonl", "test": "a.jsonl"},
    "teachers": [{"model": "a/b"}],
}


class ShipSettings(BaseModel):
    context: int


class Given:
    """Files from outside as an artifact."""

    name, version, libraries = "given", 1, ()

    def run(self, inputs: Mapping[str, Path], _settings: Settings, context: Context) -> Mapping[str, float | str]:
        shutil.copytree(inputs["folder"], context.out, dirs_exist_ok=True)
        return {}


class Ship:
    """`model` as a bundle with a context of so many tokens."""

    name, version, libraries = "ship", 1, ()

    def run(self, inputs: Mapping[str, Path], settings: ShipSettings, context: Context) -> Mapping[str, float | str]:
        model = Path(shutil.copytree(inputs["model"], context.work / "model"))
        config = json.loads((model / "genai_config.json").read_text())
        config["model"]["context_length"] = settings.context
        (model / "genai_config.json").write_text(json.dumps(config))
        parts = {"engine": "onnxruntime-genai", "task": TASK.describe(), "lineage": {}, "evidence": {}}
        write_bundle(context.out, name="tiny", version="1", model_folder=model, **parts)
        return {}


@pytest.fixture
def ran(tiny, tiny_onnx, tmp_path, monkeypatch) -> Callable[[int], RunResult]:
    """Runs what stands behind a trained student and its export, whose bundle has a context of so many tokens."""
    shutil.copytree(tiny.folder, tmp_path / "student" / "model")
    (tmp_path / "data").mkdir()
    pairs = enumerate(tiny.pairs.items())
    rows = [{"id": f"r{i}", "input": text, "output": json.loads(answer)} for i, (text, answer) in pairs]
    write_jsonl(tmp_path / "data" / "test.jsonl", rows)
    (tmp_path / "data" / "task.json").write_text(json.dumps(TASK.describe()))

    def nodes(context: int) -> list[Node]:
        score = ScoreSettings(latency_requests=1, threads=1)
        scored = {"student": "score:student", "shipped": "score:student"}
        asked = {"source": "student", "answers": "score:student", "evaluate": "evaluate"}
        return [
            Node("data", Given, Settings(), sources={"folder": tmp_path / "data"}),
            Node("student", Given, Settings(), sources={"folder": tmp_path / "student"}),
            Node("score:student", Score, score, inputs={"model": "student", "data": "data"}),
            Node("evaluate", Compare, CompareSettings(gates={}), inputs={"data": "data", **scored}),
            Node("bundle", Ship, ShipSettings(context=context), sources={"model": tiny_onnx}),
            Node("parity", CheckParity, CheckParitySettings(threads=1), {**asked, "bundle": "bundle", "data": "data"}),
        ]

    def go(context: int) -> RunResult:
        monkeypatch.setattr(slmops.pipeline.plan, "nodes_for", lambda _: nodes(context))
        return run(Recipe.model_validate(RECIPE), home=tmp_path / ".slmops")

    return go


def test_a_bundle_that_answers_otherwise_is_not_placed_and_one_that_does_not_is(ran, tmp_path):
    broken = ran(100)
    assert broken.exit_code == 3
    assert broken.failed_gates == (
        "parity_context: a prompt and its answer may have 128 tokens, and 100 in what ships",
    )
    assert not (tmp_path / "bundles").exists()
    found = json.loads((broken.artifacts["parity"].path / "parity.json").read_text())
    assert found["measured"] is None
    assert "<failure" in (broken.artifacts["parity"].path / "junit.xml").read_text()
    assert "Do not ship: 1 of 5 gates fail" in (broken.artifacts["parity"].path / "summary.md").read_text()

    sound = ran(128)
    assert (sound.exit_code, sound.failed_gates) == (0, ())
    assert (tmp_path / "bundles" / "tiny" / "manifest.json").is_file()
    assert sound.artifacts["score:student"].cached
    figures = sound.artifacts["parity"].metrics
    assert figures["parity_agreement"] == 1
    assert figures["parity_token_kl"] < 1e-6
    assert figures["parity_weights"] == 0
    assert figures["parity_positions"] == 0
    assert figures["gates_failed"] == 0
    found = json.loads((sound.artifacts["parity"].path / "parity.json").read_text())
    assert (found["rows"], found["shipped"]) == (4, "onnxruntime-genai, float32")
