"""Packed weights: what the runtime's own exporter would have written where it can, and more where it cannot."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from slmops.compress.convert import shrink
from slmops.compress.export import TESTED, export
from slmops.compress.pack import pack, packed
from slmops.engines import load_engine
from slmops.engines.onnx_file import describe
from slmops.models.source import load_model, save_model
from slmops.models.weight_files import weights_bytes
from slmops.recipe.compress import CompressSettings
from tests.families import FAMILIES, make
from tests.tokenizer_kinds import tokenizer


def made(exported: Path, to: Path, **settings: Any) -> Path:
    """A copy of an export in float32, packed."""
    folder = Path(shutil.copytree(exported, to / "model"))
    shrink(folder / "model.onnx", CompressSettings(**settings))
    return folder


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(tiny.folder, folder / "model", scratch=folder / "scratch")
    return folder / "model"


@pytest.fixture(scope="module")
def untied(tiny, tmp_path_factory) -> tuple[Path, Path]:
    """The tiny model with a head of its own, with the same values, and its export."""
    folder = tmp_path_factory.mktemp("untied")
    model = load_model(tiny.folder)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    save_model(model, folder / "hf", tokenizer_from=tiny.folder)
    export(folder / "hf", folder / "model", scratch=folder / "scratch")
    return folder / "hf", folder / "model"


def by_the_builder(model: Path, to: Path, *extra: str) -> Path:
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    folder, cache = str(to / "builder"), str(to / "cache")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        options = parse_extra_options("", str(model), folder, "int4", "cpu", cache, ["windowed_kv_cache=false", *extra])
        create_model("", str(model), folder, "int4", "cpu", cache, **options)
    return Path(folder)


def parts(folder: Path) -> dict[str, list[np.ndarray]]:
    """Of each product with packed weights, what it holds."""
    graph = onnx.load(folder / "model.onnx").graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    cast = {
        node.output[0]: held[node.input[0]] for node in graph.node if node.op_type == "Cast" and node.input[0] in held
    }
    return {
        node.name: [(held | cast)[name] for name in node.input[1:]] + sorted((a.name, a.i) for a in node.attribute)
        for node in graph.node
        if node.op_type == "MatMulNBits"
    }


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        ({"head": "int4", "block_size": 16}, ["block_size=16"]),
        ({"head": "int8"}, ["matmul_mixed_precision=last_matmul:int8"]),
        ({"head": "int4", "algorithm": "k_quant"}, ["algo_config=k_quant"]),
    ],
)
def test_it_is_what_the_exporter_itself_writes(tiny, exported, tmp_path, settings, extra):
    ours, theirs = parts(made(exported, tmp_path, **settings)), parts(by_the_builder(tiny.folder, tmp_path, *extra))
    assert ours.keys() == theirs.keys()
    for name, held in ours.items():
        assert len(held) == len(theirs[name])
        for mine, builders in zip(held, theirs[name], strict=True):
            if isinstance(mine, np.ndarray) and mine.dtype == np.float16:  # where the exporter has float32
                builders = np.asarray(builders).astype(np.float16)
            np.testing.assert_array_equal(mine, builders, err_msg=name)


SETTINGS: list[dict[str, Any]] = [
    {"precision": "int8"},
    {"precision": "int8", "symmetric": False},
    {"precision": "int8", "activations": "fp32"},
    {"symmetric": False},
    {"symmetric": False, "head": "int4", "block_size": 128},
    {"head": "int4"},
    {"head": "fp32"},
    {"head": "int4", "embedding": "int8"},
    {"head": "int8", "embedding": "fp32"},
    {"head": "fp32", "embedding": "int4", "block_size": 16},
    {"algorithm": "k_quant", "block_size": 16},
    {"activations": "fp32"},
]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_way_loads_and_says_what_it_said(tiny, exported, untied, tmp_path, settings, tied):
    source, whole = (tiny.folder, exported) if tied else untied
    folder = made(whole, tmp_path, **settings)
    told = CompressSettings(**settings)
    before, after = load_engine("transformers", source, threads=1), load_engine("onnxruntime-genai", folder, threads=1)
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    answers = [tiny.tokenizer.encode(answer) for answer in tiny.pairs.values()]
    apart = [np.concatenate(engine.score(prompts, answers)) for engine in (before, after)]
    # A tiny model feels a rounded weight more than a real one.
    assert np.abs(apart[0] - apart[1]).mean() < (0.02 if told.precision == "int8" else 0.6)
    precision, count = describe(folder / "model.onnx")
    width, own = 64 * tiny.tokenizer.size, told.embedding or told.head
    twice = tied and own != told.head
    assert count == load_engine("transformers", source, threads=1).info().parameters + (width if twice else 0)
    bits = {told.precision, told.head, own}
    assert precision == "+".join(sorted(bits, key=["int4", "int8", "fp32"].index)).replace("fp32", "float32")


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_the_embedding_is_packed_with_the_head(exported, tmp_path, precision):
    folder = made(exported, tmp_path, precision=precision, head=precision)
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    floats = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]
    # Only sine and cosine of positions: scales are of sixteen bits.
    assert all("cache" in tensor.name for tensor in floats)
    assert (
        sum("lm_head" in tensor.name and tensor.data_type == onnx.TensorProto.UINT8 for tensor in graph.initializer)
        == 1
    )


def test_fewer_bits_and_larger_blocks_take_less_room(exported, tmp_path):
    ways = [
        {"precision": "int8"},
        {"precision": "int4", "head": "int8", "block_size": 16},
        {"precision": "int4", "head": "int4", "block_size": 16},
        {"precision": "int4", "head": "int4", "block_size": 64},
    ]
    sizes = [weights_bytes(made(exported, tmp_path / str(i), **way)) for i, way in enumerate(ways)]
    assert sizes == sorted(sizes, reverse=True)
    zeros = weights_bytes(made(exported, tmp_path / "zeros", **ways[2], symmetric=False))
    assert zeros > sizes[2]


def test_layers_that_stay_in_eight_bits_do(exported):
    model = onnx.load(exported / "model.onnx")
    pack(model, CompressSettings(), int8_layers=[1])
    bits = {
        node.name: onnx.helper.get_node_attr_value(node, "bits")
        for node in model.graph.node
        if node.op_type == "MatMulNBits"
    }
    assert len(bits) == 2 * 5 + 1
    assert all(b == (8 if "layers.1/" in name or "lm_head" in name else 4) for name, b in bits.items())


def test_activations_are_rounded_or_not(tiny, exported, tmp_path):
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    answers = [tiny.tokenizer.encode(answer) for answer in reversed(tiny.pairs.values())]
    scores = {}
    for activations in ("fp32", "int8"):
        folder = made(exported, tmp_path / activations, activations=activations)
        scores[activations] = np.concatenate(
            load_engine("onnxruntime-genai", folder, threads=1).score(prompts, answers)
        )
    assert not np.array_equal(scores["fp32"], scores["int8"])


POSITIONS: dict[str, dict[str, Any]] = {
    "phi3": {
        "hidden_size": 256,
        "original_max_position_embeddings": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    },
    "phi4-mini": {
        "hidden_size": 256,
        "original_max_position_embeddings": 32,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "short_factor": [1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35],
            "long_factor": [1.5, 1.6, 1.7, 1.8, 2.0, 2.2, 2.4, 2.5],
            "original_max_position_embeddings": 32,
        },
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_exported_and_packed(family, tmp_path):
    assert FAMILIES[family][1].__name__ in TESTED
    told = tokenizer("gemma")
    (end,) = told.end_ids
    # Heads of 16, as the runtime wants them.
    shape = {"hidden_size": 128, "max_position_embeddings": 128} | POSITIONS.get(family, {})
    model = make(family, vocab_size=told.size, eos_token_id=end, pad_token_id=end, **shape)
    save_model(model, tmp_path / "hf")
    told.save(tmp_path / "hf")
    before = load_engine("transformers", tmp_path / "hf", threads=1)
    prompts, answers = [told.encode("where is my order, it is late")], [told.encode("cancel it")]
    expected = np.concatenate(before.score(prompts, answers))
    export(tmp_path / "hf", tmp_path / "whole", scratch=tmp_path / "scratch")
    for precision, most in (("int8", 0.5), ("int4", 8.0)):
        folder = made(tmp_path / "whole", tmp_path / precision, precision=precision, symmetric=False, block_size=16)
        after = load_engine("onnxruntime-genai", folder, threads=1)
        assert np.abs(np.concatenate(after.score(prompts, answers)) - expected).max() < most
        assert after.info().parameters == before.info().parameters


def test_a_matrix_that_blocks_do_not_fill_is_filled_up():
    matrix = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    for bits in (4, 8):
        for settings in (CompressSettings(), CompressSettings(symmetric=False), CompressSettings(algorithm="k_quant")):
            made = packed(matrix, bits, settings)
            assert made.values.shape == (3, 2, 32 * bits // 8)
            assert made.scales.shape == (3, 2)
            assert made.scales.dtype == np.float16
            assert made.width == 40
            assert (made.zeros is None) == (settings.symmetric and settings.algorithm != "k_quant")
            assert made.zeros is None or made.zeros.shape == (3, bits // 4)
