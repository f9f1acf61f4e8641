"""A bundle with adapters: as trusted as one without, and asked for each task by its adapter."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from slmops.bundle import AdapterPart, open_bundle, write_bundle
from slmops.errors import BadInput
from slmops.tasks import Classification
from tests.adapters import NAMES, Adapted, adapted_models
from tests.tiny_task import TASK

LABELS = Classification(("refund", "invoice"), "Say which", 8)
FITTED = {"temperature": 2.0, "rows": 40, "answered_accuracy": 0.9, "ece_before": 0.1, "ece_after": 0.05}


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory) -> dict[str, Adapted]:
    return adapted_models(tiny.folder, tmp_path_factory.mktemp("models"))


def write(out: Path, models: dict[str, Adapted], engine: str) -> Path:
    model = models[engine]
    first, second = (model.adapters[name] for name in NAMES)
    parts = {
        "labels": AdapterPart(first, LABELS.describe(), evidence={"accuracy": 0.9}, calibration=FITTED),
        "tickets": AdapterPart(second, TASK.describe()),
    }
    told = {"name": "support", "version": "1", "task": TASK.describe(), "lineage": {}, "evidence": {}}
    write_bundle(out, engine=engine, model_folder=model.model, adapters=parts, **told)
    return out


@pytest.fixture(scope="module")
def written(models, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("written") / "bundle", models, "onnxruntime-genai")


def test_an_adapter_has_its_own_task_settings_and_evidence(written):
    bundle = open_bundle(written, threads=1)
    labels = bundle.adapted("labels")
    assert bundle.manifest.format == 3
    assert (labels.task, labels.sampling.max_tokens, labels.temperature) == (LABELS, 8, 2.0)
    assert (bundle.task, bundle.sampling.max_tokens, bundle.temperature) == (TASK, 60, 1.0)
    assert bundle.adapted("tickets").temperature == 1.0
    assert labels.tokenizer is bundle.tokenizer
    assert labels.adapted("tickets").base is bundle
    evidence = bundle.manifest.adapters["labels"].evidence
    assert json.loads((written / str(evidence)).read_text()) == {"accuracy": 0.9}
    with pytest.raises(BadInput, match="no adapter 'other'") as error:
        bundle.adapted("other")
    assert error.value.hint == "it has: labels, tickets"


def test_it_answers_as_the_bundle_of_the_reference(written, models, tmp_path, tiny):
    mine, theirs = (
        open_bundle(path, threads=1) for path in (written, write(tmp_path / "torch", models, "transformers"))
    )
    texts = list(tiny.pairs)
    for name in ("labels", "tickets"):
        one, other = mine.adapted(name), theirs.adapted(name)
        assert [each.text for each in one.predict_many(texts)] == [each.text for each in other.predict_many(texts)]
    for one, other in zip(*(each.adapted("labels").probabilities(texts) for each in (mine, theirs)), strict=True):
        assert one == pytest.approx(other, abs=2e-3)
    assert [json.loads(each.text) for each in mine.predict_many(texts)] == [json.loads(t) for t in tiny.pairs.values()]


HARMS = {
    "cut short": (lambda f: os.truncate(f / "adapters" / "labels.onnx_adapter", 100), "has 100 bytes"),
    "gone": (lambda f: (f / "adapters" / "labels.onnx_adapter").unlink(), "labels.onnx_adapter is missing"),
    "added": (lambda f: (f / "adapters" / "more.onnx_adapter").write_bytes(b"x"), "is not in its manifest"),
    "elsewhere": (lambda f: change(f, path="adapters/other.onnx_adapter"), "labels has no adapters/other"),
    "outside": (lambda f: change(f, path="../labels.onnx_adapter"), "no path inside a bundle"),
    "without its evidence": (lambda f: change(f, evidence="adapters/e.json"), "labels has no adapters/e.json"),
}


def change(folder: Path, **told: str) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["adapters"]["labels"].update(told)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", HARMS)
def test_a_harmed_adapter_makes_the_bundle_untrusted(name, written, tmp_path):
    harm, says = HARMS[name]
    copy = Path(shutil.copytree(written, tmp_path / "copy"))
    harm(copy)
    with pytest.raises(BadInput, match=says):
        open_bundle(copy)


def test_what_cannot_be_asked_is_not_written(models, tmp_path):
    model = models["onnxruntime-genai"]
    part = AdapterPart(model.adapters["first"], LABELS.describe())
    told = {"name": "a", "version": "1", "task": TASK.describe(), "lineage": {}, "evidence": {}}
    for engine, adapters, says in (
        ("llama.cpp", {"a": part}, "llama.cpp runs no adapters"),
        ("onnxruntime-genai", {"A/b": part}, "cannot be called"),
        ("onnxruntime-genai", {"a": AdapterPart(tmp_path / "none", LABELS.describe())}, "is not there"),
        ("onnxruntime-genai", {"a": AdapterPart(part.path, {"kind": "poem"})}, "'poem' is not known"),
    ):
        with pytest.raises(BadInput, match=says):
            write_bundle(tmp_path / "out", engine=engine, model_folder=model.model, adapters=adapters, **told)
    assert not (tmp_path / "out").exists()
