"""The whole way of a model that is chosen on rows, exported and packed, as a stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from slmops.compress.convert import convert
from slmops.compress.stage import Convert
from slmops.data.read import write_jsonl
from slmops.engines import engine_of, load_engine
from slmops.errors import BadInput
from slmops.pipeline.stage import Context
from slmops.recipe.compress import CompressSettings, Recover, Sparsity
from tests.tiny_task import TASK


@pytest.fixture
def inputs(tiny, tmp_path) -> dict[str, Path]:
    data, model = tmp_path / "data", tmp_path / "student"
    for folder in (data, model):
        folder.mkdir()
    (model / "model").symlink_to(tiny.folder)
    (data / "task.json").write_text(json.dumps(TASK.describe()))
    rows = [
        {"id": str(i), "input": text, "output": TASK.parse(answer)}
        for i, (text, answer) in enumerate(tiny.pairs.items())
    ]
    write_jsonl(data / "train.jsonl", rows)
    write_jsonl(data / "pool.jsonl", [{"id": f"p{i}", "input": f"Where is order {i}?"} for i in range(20)])
    return {"model": model, "data": data}


def shipped(inputs: dict[str, Path], folder: Path, **settings: Any) -> dict[str, float | str]:
    context = Context(out=folder / "out", work=folder / "work", seed=7)
    return dict(Convert().run(inputs, CompressSettings(calibration_tokens=1000, **settings), context))


def test_scaled_rounded_and_mixed_at_once_it_answers_as_before(tiny, inputs, tmp_path):
    figures = shipped(
        inputs, tmp_path, algorithm="awq-gptq", symmetric=False, int8_layers=1, head="int4", block_size=16
    )
    costs = [figures["rounding_cost_of_layer_0"], figures["rounding_cost_of_layer_1"]]
    graph = onnx.load(tmp_path / "out" / "model" / "model.onnx", load_external_data=False).graph
    bits = {
        node.name.split("/")[2]: onnx.helper.get_node_attr_value(node, "bits")
        for node in graph.node
        if node.op_type == "MatMulNBits" and "layers." in node.name
    }
    assert bits == {f"layers.{i}": 8 if costs[i] == max(costs) else 4 for i in range(2)}
    assert figures["awq_error"] < figures["awq_error_unscaled"]
    assert 0 < figures["rounding_error"] < 0.05
    engine = load_engine("onnxruntime-genai", tmp_path / "out" / "model", threads=1)
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    answers = [tiny.tokenizer.encode(answer) for answer in tiny.pairs.values()]
    assert np.concatenate(engine.score(prompts, answers)).mean() > -0.05
    assert engine.info().precision == "int4+int8"


def test_zeros_take_their_room_and_pack_well(inputs, tmp_path):
    figures = shipped(inputs, tmp_path, sparsity=Sparsity(pattern="2:4"), algorithm="gptq")
    assert figures["pruned_share"] == pytest.approx(0.5)
    assert figures["weights_bytes_compressed"] < figures["weights_bytes"]


def test_what_is_written_for_another_runtime_is_weighed_as_well(inputs, tmp_path):
    figures = shipped(inputs, tmp_path, runtime="llama.cpp", precision="fp16")
    assert figures["weights_bytes"] == (tmp_path / "out" / "model" / "model.gguf").stat().st_size


def test_openvino_gets_the_file_of_onnxruntime_and_a_mark(inputs, tmp_path):
    shipped(inputs, tmp_path, runtime="openvino", precision="int8")
    shipped(inputs, tmp_path / "other", precision="int8")
    ours, theirs = tmp_path / "out" / "model", tmp_path / "other" / "out" / "model"
    assert (engine_of(ours), engine_of(theirs)) == ("openvino", "onnxruntime-genai")
    for file in ("model.onnx", "model.onnx.data"):
        assert (ours / file).read_bytes() == (theirs / file).read_bytes()


def test_what_is_chosen_by_rows_needs_rows(tiny, tmp_path):
    with pytest.raises(BadInput, match="gptq chooses values by rows") as error:
        convert(tiny.folder, tmp_path / "out", CompressSettings(), scratch=tmp_path / "scratch")
    assert "rtn" in error.value.hint


def test_recovery_is_not_left_out_in_silence(inputs, tmp_path):
    with pytest.raises(BadInput, match="recovers before it is converted"):
        shipped(inputs, tmp_path, recover=Recover())


def test_as_many_layers_as_there_are_is_another_precision(inputs, tmp_path):
    with pytest.raises(BadInput, match="the model has 2 layers"):
        shipped(inputs, tmp_path, int8_layers=2)
