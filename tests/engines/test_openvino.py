"""What is exported says the same on OpenVINO, of every family and however it is packed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from slmops.compress.convert import shrink
from slmops.compress.export import export
from slmops.engines import load_engine
from slmops.engines.base import Engine
from slmops.errors import BadInput
from slmops.recipe.compress import CompressSettings
from tests.compress.test_gguf_file import model
from tests.runtimes import needs

WHOLE: dict[str, Any] = {"activations": "fp32"}
WAYS: list[dict[str, Any]] = [
    {"precision": "fp32"},
    {"precision": "int8", **WHOLE},
    {"algorithm": "rtn", "head": "int4", "block_size": 64, **WHOLE},
    {"algorithm": "rtn", "head": "int4", "symmetric": False, **WHOLE},
    {"algorithm": "k_quant", "embedding": "int8", "head": "fp32", **WHOLE},
]
"""Inputs of packed products stay as they are, so that both runtimes compute the same."""


@pytest.fixture(scope="module", params=["qwen2", "phi4-mini", "gemma3"])
def exported(request, tmp_path_factory) -> Path:
    """Each with something of its own; Qwen 2 has rows that blocks of 64 do not go into."""
    folder = tmp_path_factory.mktemp(request.param)
    changes = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2}
    source = model(request.param, folder / "hf", **(changes if request.param == "qwen2" else {}))
    export(source, folder / "whole", scratch=folder / "scratch")
    return folder / "whole"


def said(engine: Engine, texts: list[list[int]]) -> list[np.ndarray]:
    return engine.score([ids[:1] for ids in texts], [ids[1:] for ids in texts])


def test_it_says_what_onnxruntime_says(exported, tmp_path):
    """Texts longer than a window of Gemma 3, several at once; of two rotary tables that of short texts alone."""
    needs("openvino")
    rng = np.random.default_rng(0)
    for number, way in enumerate(WAYS):
        folder = tmp_path / str(number)
        shutil.copytree(exported, folder)
        shrink(folder / "model.onnx", CompressSettings(**way))
        ours, theirs = (load_engine(name, folder, threads=1) for name in ("openvino", "onnxruntime-genai"))
        room = ours.info().context_tokens
        assert room == (32 if "phi4-mini" in str(exported) else 128)
        texts = [rng.integers(3, 300, length).tolist() for length in (room, room - 9, 5)]
        for own, other in zip(said(ours, texts), said(theirs, texts), strict=True):
            np.testing.assert_allclose(own, other, atol=2e-3, err_msg=str(way))


def test_inputs_are_rounded_where_the_model_says_so(tiny_onnx, tmp_path):
    """A little: it is what the default packs for."""
    needs("openvino")
    shutil.copytree(tiny_onnx, tmp_path / "model")
    shrink(tmp_path / "model" / "model.onnx", CompressSettings(precision="int8"))
    ours, theirs = (load_engine(name, tmp_path / "model", threads=1) for name in ("openvino", "onnxruntime-genai"))
    text = [list(range(3, 60))]
    (own,), (other,) = said(ours, text), said(theirs, text)
    assert 0 < np.abs(own - other).max() < 0.5


def test_what_is_not_translated_is_refused(tiny_onnx, tmp_path):
    needs("openvino")
    shutil.copytree(tiny_onnx, tmp_path / "model")
    path = tmp_path / "model" / "model.onnx"
    graph = onnx.load(path, load_external_data=False)
    next(node for node in graph.graph.node if node.op_type == "Sigmoid").op_type = "Tanh"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(BadInput, match="Tanh"):
        load_engine("openvino", tmp_path / "model")
