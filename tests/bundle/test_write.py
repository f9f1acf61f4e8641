"""Writing bundles: the same parts give the same bytes, and a bundle's place is taken whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from slmops.bundle import open_bundle, place_bundle, write_bundle
from slmops.bundle.phrases import PHRASES, Phrases
from slmops.bundle.stage import WriteBundle, WriteBundleSettings
from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.pipeline.files import content_digest
from slmops.pipeline.stage import Context


@pytest.fixture
def parts(tiny_onnx, task) -> dict:
    return {
        "name": "support",
        "version": "1.0.0",
        "engine": "onnxruntime-genai",
        "model_folder": tiny_onnx,
        "task": task.describe(),
        "lineage": {"seed": 7},
        "evidence": {"n": 3},
    }


def test_the_same_parts_give_the_same_bytes(parts, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_bundle(first, **parts)
    write_bundle(second, **parts)
    assert content_digest(first) == content_digest(second)
    write_bundle(tmp_path / "other", **parts | {"evidence": {"n": 4}})
    assert content_digest(first) != content_digest(tmp_path / "other")


def test_a_time_of_writing_may_be_given(parts, tmp_path):
    write_bundle(tmp_path / "b", **parts, created="2026-01-01T00:00:00Z")
    assert open_bundle(tmp_path / "b").manifest.created == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"engine": "abacus"}, "no engine 'abacus'"),
        ({"task": {"kind": "poetry"}}, "task of kind 'poetry'"),
        ({"model_folder": Path("/nonexistent")}, "holds no tokenizer.json"),
    ],
)
def test_parts_that_do_not_make_a_bundle(parts, tmp_path, change, says):
    with pytest.raises(BadInput, match=says):
        write_bundle(tmp_path / "b", **parts | change)
    assert not (tmp_path / "b").exists()


def test_nothing_is_overwritten(parts, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="is not empty"):
        write_bundle(tmp_path, **parts)


def test_a_bundle_takes_the_place_of_an_older_one(parts, tmp_path):
    place = tmp_path / "bundles" / "support"
    for version in ("1.0.0", "2.0.0"):
        write_bundle(tmp_path / version, **parts | {"version": version})
        place_bundle(tmp_path / version, place)
        assert open_bundle(place).manifest.version == version
        assert [path.name for path in place.parent.iterdir()] == ["support"]


def test_only_a_whole_bundle_is_placed_and_only_a_bundle_replaced(parts, tmp_path):
    write_bundle(tmp_path / "new", **parts)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not lose")
    with pytest.raises(BadInput, match="is not a bundle"):
        place_bundle(tmp_path / "new", tmp_path / "mine")
    os.truncate(tmp_path / "new" / "evidence.json", 3)
    with pytest.raises(BadInput, match=r"evidence.json has 3 bytes"):
        place_bundle(tmp_path / "new", tmp_path / "place")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not lose"
    assert not (tmp_path / "place").exists()


def test_the_stage(tiny_onnx, task, tmp_path):
    inputs = {name: tmp_path / name for name in ("data", "evaluate", "model", "card")}
    for folder in inputs.values():
        folder.mkdir()
    (inputs["data"] / "task.json").write_text(json.dumps(task.describe()))
    labelled = {"input": "Where is my order?", "output": {"intent": "order_late"}}
    write_jsonl(inputs["data"] / "train.jsonl", [labelled] * 3)
    (inputs["evaluate"] / "evidence.json").write_text('{"n": 3}')
    (inputs["card"] / "MODEL_CARD.md").write_text("# support")
    shutil.copytree(tiny_onnx, inputs["model"] / "model")
    settings = WriteBundleSettings(name="support", version="1.0.0", recipe={"name": "support", "seed": 5})
    outs = []
    for number in range(2):
        out = tmp_path / f"out{number}"
        figures = WriteBundle().run(inputs, settings, Context(out=out, work=tmp_path / "work", seed=5))
        outs.append(out)
        assert figures["version"] == "1.0.0"
        assert figures["bundle_bytes"] == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert content_digest(outs[0]) == content_digest(outs[1])
    lineage = open_bundle(outs[0]).manifest.lineage
    assert lineage["seed"] == 5
    assert lineage["recipe"]["name"] == "support"
    assert lineage["inputs"]["data"] == content_digest(inputs["data"])
    assert "onnxruntime-genai" in lineage["environment"]["versions"]
    assert json.loads((outs[0] / "evidence.json").read_text()) == {"n": 3}
    assert (outs[0] / "MODEL_CARD.md").read_text() == "# support"
    bundle = open_bundle(outs[0])
    phrases = Phrases.load(outs[0] / PHRASES, vocabulary=bundle.tokenizer.size)
    asked = bundle.tokenizer.prompt(task.render(labelled["input"]))
    assert phrases.after(asked) == (bundle.tokenizer.encode(task.write(labelled["output"]))[0], 1.0)
    assert "MODEL_CARD.md" in open_bundle(outs[0]).manifest.files
