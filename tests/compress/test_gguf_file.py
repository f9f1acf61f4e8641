"""GGUF holds the values that ONNX holds, and llama.cpp says with them what PyTorch says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from slmops.compress.export import export
from slmops.compress.gguf_file import write_gguf
from slmops.engines import load_engine
from slmops.engines.gguf_weights import GgufWeights
from slmops.engines.onnx_weights import OnnxWeights
from slmops.errors import BadInput
from slmops.evaluate.parity_weights import compare_weights
from slmops.models.source import save_model
from slmops.recipe.compress import CompressSettings
from tests.compress.test_pack import POSITIONS, made
from tests.families import make
from tests.tokenizer_kinds import tokenizer

_PLAIN: dict[str, Any] = {"use_sliding_window": False}
_KINDS = [*["sliding_attention"] * 5, "full_attention"]
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "qwen2": _PLAIN,
    "qwen3": _PLAIN,
    "phi3": POSITIONS["phi3"],
    "phi4-mini": POSITIONS["phi4-mini"],
    "gemma3": {"query_pre_attn_scalar": 16, "num_hidden_layers": 6, "layer_types": _KINDS, "sliding_window": 64},
}
"""What llama.cpp can run of each family."""


def model(kind: str, folder: Path, **changes: Any) -> Path:
    told = tokenizer("gemma")
    (end,) = told.end_ids
    shape = {"hidden_size": 128, "intermediate_size": 64, "max_position_embeddings": 128} | SHAPES.get(kind, {})
    family = "llama" if kind == "llama-3" else kind
    save_model(make(family, vocab_size=told.size, eos_token_id=end, pad_token_id=end, **shape | changes), folder)
    told.save(folder)
    return folder


@pytest.fixture(scope="module", params=SHAPES)
def source(request, tmp_path_factory) -> Path:
    return model(request.param, tmp_path_factory.mktemp(request.param) / "hf")


WAYS: list[dict[str, Any]] = [
    {"precision": "int8"},
    {"head": "int8", "int8_layers": 1},
    {"head": "int4"},
    {"symmetric": False, "head": "int4"},
    {"algorithm": "k_quant", "head": "int4"},
    {"head": "fp32", "embedding": "int8"},
]


def by(source: Path, out: Path, **settings: Any) -> Path:
    told = CompressSettings(runtime="llama.cpp", **settings)
    write_gguf(source, out, told, int8_layers=range(told.int8_layers))
    return out


def test_the_same_weights_as_in_pytorch_in_their_places(source, tmp_path):
    for number, way in enumerate([*({"precision": name} for name in ("fp32", "fp16", "bf16")), *WAYS]):
        found = compare_weights(source, by(source, tmp_path / str(number), **way), "llama.cpp")
        assert (found.misplaced, found.missing) == (0, ())
        assert found.cosine > (0.9999 if way.get("precision") else 0.98), way
        assert found.turned < 1e-4


def test_the_same_values_as_in_onnx(source, tmp_path):
    export(source, tmp_path / "whole", scratch=tmp_path / "scratch")
    for number, way in enumerate(WAYS[:-1]):
        way = {key: value for key, value in way.items() if key != "int8_layers"}
        packed = made(tmp_path / "whole", tmp_path / f"{number}.onnx", **way)
        ours = dict(GgufWeights(by(source, tmp_path / f"{number}.gguf", **way)).matrices())
        theirs = dict(OnnxWeights(packed).matrices())
        assert theirs.keys() - ours.keys() <= {"lm_head"}  # one matrix, where it is the embedding
        for name, matrix in ours.items():
            # What level 0 means is rounded to sixteen bits in GGUF.
            close = 2e-3 if "Q4_1" in str(way) or way.get("symmetric") is False or "algorithm" in way else 1e-7
            np.testing.assert_allclose(matrix, theirs[name], atol=close * np.abs(matrix).max(), err_msg=f"{way} {name}")


def test_llamacpp_says_what_pytorch_says(source, tmp_path):
    pytest.importorskip("llama_cpp", reason="it is compiled, and installed apart")
    told = tokenizer("gemma")
    before = load_engine("transformers", source, threads=1)
    texts = ["where is my order, it is late", "cancel it, please, and send the money back to me " * 3]
    prompts, answers = [told.encode(text) for text in texts], [told.encode("cancel it now")] * 2
    expected = np.concatenate(before.score(prompts, answers))
    for way, most in (
        ({"precision": "fp32"}, 2e-3),
        ({"precision": "fp16"}, 2e-2),
        ({"precision": "bf16"}, 0.2),
        ({"precision": "int8"}, 0.5),
        ({"symmetric": False, "head": "int4"}, 8),
    ):
        after = load_engine("llama.cpp", by(source, tmp_path / str(most), **way), threads=1)
        assert np.abs(np.concatenate(after.score(prompts, answers)) - expected).max() < most
        assert after.info().parameters == before.info().parameters
    assert after.info().precision == "int4"


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("gemma3", {"layer_types": ["full_attention"] * 6}, "every sixth layer"),
        ("gemma3", {"query_pre_attn_scalar": 256}, "query_pre_attn_scalar 256"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}, "a window alone"),
        ("llama", {"hidden_size": 176, "num_attention_heads": 11, "num_key_value_heads": 1}, "176 columns"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "scaled as linear"),
    ],
)
def test_what_the_runtime_cannot_be_told_is_refused(kind, changes, says, tmp_path):
    source = model(kind, tmp_path / "hf", **changes)
    with pytest.raises(BadInput, match=says):
        by(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"block_size": 64}, "blocks of 32"),
        ({"activations": "fp32"}, "always rounds"),
        ({"symmetric": False}, "four bits alone"),
        ({"algorithm": "k_quant"}, "four bits alone"),
    ],
)
def test_settings_that_its_format_has_no_room_for_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        CompressSettings(runtime="llama.cpp", **settings)
