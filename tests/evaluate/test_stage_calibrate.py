"""Calibrating a real model's labels, and the bundle that keeps it."""

from __future__ import annotations

import json
import shutil

import pytest

from slmops.bundle import open_bundle, write_bundle
from slmops.bundle.manifest import MANIFEST
from slmops.evaluate.stage_calibrate import LEAST_ROWS, Calibrate, CalibrateSettings
from slmops.pipeline.stage import Context
from slmops.tasks import Classification

TASK = Classification(("refund", "invoice", "other"), None, 8)


def rows(count: int) -> list[dict]:
    labels = ("refund", "invoice", "other")
    return [{"id": str(n), "input": f"message {n}", "output": labels[n % 3]} for n in range(count)]


@pytest.fixture
def calibrated(request, tiny_onnx, tmp_path) -> dict:
    """What the stage writes for so many validation rows."""
    data, answers = tmp_path / "data", tmp_path / "answers"
    for folder in (data, answers, tmp_path / "shipped", tmp_path / "out"):
        folder.mkdir()
    shutil.copytree(tiny_onnx, tmp_path / "shipped" / "model")
    (data / "task.json").write_text(json.dumps(TASK.describe()))
    test = rows(12)
    sure = {"refund": 0.98, "invoice": 0.01, "other": 0.01}
    predictions = [{"id": row["id"], "text": "refund", "probabilities": sure} for row in test]
    for path, lines in (
        (data / "validation.jsonl", rows(request.param)),
        (data / "test.jsonl", test),
        (answers / "predictions.jsonl", predictions),
    ):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = CalibrateSettings(answered_accuracy=0.9, threads=1)
    inputs = {"data": data, "model": tmp_path / "shipped", "answers": answers}
    Calibrate().run(inputs, settings, Context(out=tmp_path / "out", work=tmp_path, seed=7))
    return json.loads((tmp_path / "out" / "calibration.json").read_text())


@pytest.mark.parametrize("calibrated", [60], indirect=True)
def test_labels_that_say_nothing_make_a_model_unsure(calibrated, tiny_onnx, tmp_path):
    assert calibrated["temperature"] > 1
    assert calibrated["ece_before"] == pytest.approx(0.98 - 1 / 3)
    assert calibrated["ece_after"] < calibrated["ece_before"]
    bundle = tmp_path / "bundle"
    parts = {"name": "tiny", "version": "1", "engine": "onnxruntime-genai", "lineage": {}, "evidence": {}}
    write_bundle(bundle, model_folder=tiny_onnx, task=TASK.describe(), calibration=calibrated, **parts)
    assert json.loads((bundle / MANIFEST).read_text())["format"] == 2
    plain = tmp_path / "plain"
    write_bundle(plain, model_folder=tiny_onnx, task=TASK.describe(), **parts)
    assert json.loads((plain / MANIFEST).read_text())["format"] == 1
    (told,), (untold,) = (open_bundle(one, threads=1).probabilities(["message"]) for one in (bundle, plain))
    assert max(told.values()) < max(untold.values())
    assert sum(told.values()) == pytest.approx(1)


@pytest.mark.parametrize("calibrated", [LEAST_ROWS - 1], indirect=True)
def test_few_rows_change_nothing(calibrated):
    assert calibrated["temperature"] == 1
    assert "abstain_below" not in calibrated
    assert calibrated["ece_after"] == calibrated["ece_before"]
