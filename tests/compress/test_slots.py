"""Slots beside the products of an exported base, and what may ride in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from slmops.compress.adapters import convert_adapters
from slmops.compress.convert import convert
from slmops.engines import load_engine
from slmops.engines.onnx_file import describe
from slmops.engines.onnx_slots import OnnxAdapter, slots_in, without_slots
from slmops.engines.onnx_weights import OnnxWeights
from slmops.errors import BadInput
from slmops.models.source import save_model
from slmops.recipe.compress import CompressSettings
from tests.adapters import ALL, random_adapter
from tests.families import make
from tests.tagger import save_tagger
from tests.tokenizer_kinds import tokenizer

FP32 = CompressSettings(precision="fp32")
TARGETS = {
    "qwen2": ["q_proj", "v_proj", "down_proj"],
    "qwen3": ALL,
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    "gemma3": ["k_proj", "up_proj"],
}
"""Maps that one product makes several of, that one map makes several products of, with biases, norms and scales."""


@pytest.mark.parametrize("family", TARGETS)
def test_an_adapter_of_every_family_does_what_it_does_merged(family, tmp_path):
    told = tokenizer("bytes")
    end = min(told.end_ids)
    model = make(family, vocab_size=told.size, eos_token_id=end, pad_token_id=end, num_hidden_layers=2, **kinds(family))
    save_model(model, tmp_path / "base")
    told.save(tmp_path / "base")
    patterns = {"rank_pattern": {"o_proj": 3}, "alpha_pattern": {"layers.1.mlp.down_proj": 1}}
    folder = random_adapter(tmp_path / "base", tmp_path / "own", seed=3, targets=TARGETS[family], **patterns)
    convert_adapters(tmp_path / "base", {"own": folder}, tmp_path / "out", FP32, scratch=tmp_path / "scratch")
    reference = load_engine("transformers", tmp_path / "base", threads=1)
    engine = load_engine("onnxruntime-genai", tmp_path / "out" / "model", threads=1)
    prompts, continuations = [[3, 4, 5, 6, 7, 8, 9], [20, 21, 22]], [[10, 11, 12, 13], [30, 31]]
    pairs = [(engine, reference)]
    pairs += [(engine.adapted(tmp_path / "out" / "adapters" / "own.onnx_adapter"), reference.adapted(folder))]
    scores = [[one.score(prompts, continuations) for one in pair] for pair in pairs]
    for mine, theirs in scores:
        for row in range(2):
            np.testing.assert_allclose(mine[row], theirs[row], atol=2e-3)
    assert np.abs(scores[0][0][0] - scores[1][0][0]).max() > 0.05, "the adapter changes something"


def kinds(family: str) -> dict[str, Any]:
    """Two layers of what the family has; the kernel takes heads of 16 features and its multiples."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    if family == "phi3":
        rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
        shape = {"hidden_size": 128, "max_position_embeddings": 128, "original_max_position_embeddings": 128}
        return heads | shape | {"rope_parameters": rotary}
    if family == "gemma3":
        return heads | {"layer_types": ["sliding_attention", "full_attention"]}
    return heads | {"max_window_layers": 1}


@pytest.fixture(scope="module")
def packed(tiny, tmp_path_factory) -> tuple[Path, Path]:
    """The tiny model in four bits, without slots and with."""
    out = tmp_path_factory.mktemp("packed")
    settings = CompressSettings(precision="int4", algorithm="rtn")
    folder = random_adapter(tiny.folder, out / "own", seed=1)
    convert(tiny.folder, out / "plain", settings, scratch=out / "scratch")
    figures = convert_adapters(tiny.folder, {"own": folder}, out / "made", settings, scratch=out / "scratch2")
    assert figures["adapters_bytes"] == (out / "made" / "adapters" / "own.onnx_adapter").stat().st_size
    return out / "plain", out / "made"


def test_slots_take_nothing_from_the_base(packed):
    """Its file says the same of its weights, which are read back the same, and without slots it is the same graph."""
    plain, made = packed
    assert describe(made / "model" / "model.onnx") == describe(plain / "model.onnx")
    for (name, one), (other, two) in zip(
        OnnxWeights(plain).matrices(), OnnxWeights(made / "model").matrices(), strict=True
    ):
        assert name == other
        np.testing.assert_array_equal(one, two)
    graphs = [onnx.load(path / "model.onnx", load_external_data=False).graph for path in (plain, made / "model")]
    assert len(slots_in(made / "model")) == 14
    without_slots(graphs[1])
    assert [node.SerializeToString() for node in graphs[0].node] == [
        node.SerializeToString() for node in graphs[1].node
    ]
    assert [each.name for each in graphs[0].input] == [each.name for each in graphs[1].input]


def test_an_adapter_of_another_model_is_refused(packed):
    _, made = packed
    slots = slots_in(made / "model")
    file = made / "adapters" / "own.onnx_adapter"
    for told, says in (
        ({name: sizes for name, sizes in slots.items() if "layers.1.mlp" not in name}, "no slot for"),
        (slots | {"layers.0.attn.q_proj": (64, 65)}, "does not fit layers.0.attn.q_proj"),
    ):
        with pytest.raises(BadInput, match=says):
            OnnxAdapter.load(file, told)


REFUSED = {
    "dora": ({"use_dora": True}, "LoRA with use_dora"),
    "a bias": ({"bias": "lora_only"}, "LoRA with bias"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, "LoRA with modules_to_save"),
    "the head": ({"targets": ["lm_head"]}, "has base_model.model.lm_head"),
    "embeddings": ({"targets": ["embed_tokens"]}, "has base_model.model.model.embed_tokens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_more_than_a_slot_can_add_is_refused_before_the_export(name, tiny, tmp_path):
    told, says = REFUSED[name]
    base = tmp_path / "base"
    model = make("llama", vocab_size=64, num_hidden_layers=2, tie_word_embeddings=False)
    save_model(model, base)
    folder = random_adapter(base, tmp_path / "own", seed=1, **{"targets": ["q_proj"], **told})
    with pytest.raises(BadInput, match=says) as error:
        convert_adapters(base, {"own": folder}, tmp_path / "out", FP32, scratch=tmp_path / "scratch")
    assert "merge" in str(error.value.hint)
    assert not (tmp_path / "out").exists()


def test_so_is_one_of_another_base_or_for_another_runtime(tiny, tmp_path):
    folder = random_adapter(tiny.folder, tmp_path / "own", seed=1)
    save_model(make("llama", vocab_size=64), tmp_path / "base")
    save_tagger(tiny.folder, tmp_path / "tagger")
    gguf = CompressSettings(precision="fp32", runtime="llama.cpp")
    for base, adapters, settings, says in (
        (tmp_path / "base", {"own": folder}, FP32, "does not fit"),
        (tiny.folder, {}, FP32, "no adapters to export"),
        (tiny.folder, {"A/b": folder}, FP32, "cannot be called"),
        (tiny.folder, {"own": folder}, gguf, "llama.cpp runs no adapters"),
        (tmp_path / "tagger", {"own": folder}, FP32, "labels"),
    ):
        with pytest.raises(BadInput, match=says):
            convert_adapters(base, adapters, tmp_path / "out", settings, scratch=tmp_path / "scratch")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(BadInput, match="of the kind IA3"):
        convert_adapters(tiny.folder, {"own": folder}, tmp_path / "out", FP32, scratch=tmp_path / "scratch")
