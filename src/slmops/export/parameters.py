"""The parameters of a bundle's model under their Hugging Face names, as the bundle computes with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slmops.engines.blocks import Blocks
from slmops.engines.onnx_weights import EMBEDDING, Array, OnnxWeights

Part = Blocks | Array

HEAD = "lm_head.weight"
EMBEDDINGS = "model.embed_tokens.weight"

_FUSED = ("Phi3ForCausalLM",)
"""Families whose matrices of attention are one, and of the feed-forward part's gate another."""

_ONE_MORE = ("Gemma3ForCausalLM",)
"""Families whose norms multiply by one more than their weights say."""


def parameters(model: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    """Name and value of each parameter of the ONNX model in folder `model`, each as it is stored.

    The head comes where it is a matrix of its own, and not where its values are the embedding's.

    Args:
        config: of Hugging Face.
    """
    (kind,) = config["architectures"]
    parts = dict(OnnxWeights(model).parts())
    if same(parts["lm_head"], parts[EMBEDDING]):
        del parts["lm_head"]
    for name, part in parts.items():
        if name in ("lm_head", EMBEDDING):
            yield (HEAD if name == "lm_head" else EMBEDDINGS), part
            continue
        told = _renamed(name, config["num_hidden_layers"])
        if told.endswith("norm.weight"):
            yield told, values(part) - np.float32(kind in _ONE_MORE)
        elif ".qkv_proj." in told and kind not in _FUSED:
            yield from _apart(told, part, config)
        elif told.endswith("gate_proj.weight") and kind in _FUSED:
            yield told.replace("gate_proj", "gate_up_proj"), _over(part, parts[name.replace("gate_proj", "up_proj")])
        elif not (told.endswith("up_proj.weight") and kind in _FUSED):
            yield told, part


def values(part: Part) -> Array:
    """A parameter in float32."""
    return part.values() if isinstance(part, Blocks) else part


def same(one: Part, other: Part) -> bool:
    """Whether two matrices hold the same values."""
    return np.array_equal(values(one), values(other))


def _renamed(name: str, layers: int) -> str:
    """`model.layers.3.self_attn.o_proj.weight` of `layers.3.attn.o_proj`."""
    name = re.sub(rf"^layers\.{layers}\.final_norm_layernorm", "norm", name)
    name = name.replace(".attn.", ".self_attn.").replace("_norm.layernorm.", "_norm.").replace("_proj.Add.", "_proj.")
    return f"model.{name}" if name.endswith((".weight", ".bias")) else f"model.{name}.weight"


def _apart(name: str, part: Part, config: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    """Queries, keys and values, which the exporter joins."""
    heads, own = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    begin = 0
    for which, count in (("q", heads), ("k", own), ("v", own)):
        rows = slice(begin, begin + count * size)
        yield name.replace("qkv_proj", f"{which}_proj"), _rows(part, rows)
        begin = rows.stop


def _rows(part: Part, rows: slice) -> Part:
    return part.by_rows(lambda array: array[rows]) if isinstance(part, Blocks) else part[rows]


def _over(one: Part, other: Part) -> Part:
    if isinstance(one, Blocks) and isinstance(other, Blocks) and one.bits == other.bits:
        return one.over(other)
    return np.concatenate([values(one), values(other)])
