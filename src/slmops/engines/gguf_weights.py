"""The weights of a GGUF file, read back as they are multiplied with."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slmops.engines.llamacpp import FILE
from slmops.engines.onnx_weights import EMBEDDING, Array, Rotations

_OUTER = {"token_embd": EMBEDDING, "output": "lm_head"}
_INNER = {
    "attn_qkv": "attn.qkv_proj",
    "attn_output": "attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_APART = ("attn_q", "attn_k", "attn_v")
"""Matrices that the exporter of ONNX joins, in its order."""

_POSITIONS = 4096
"""Of a table that a file does not hold but says how to make."""


class GgufWeights:
    """The matrices and rotary tables of the model in a folder, under the names of `OnnxWeights`."""

    def __init__(self, folder: Path) -> None:
        from gguf import GGUFReader

        reader = GGUFReader(folder / FILE)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._fields = {name: field.contents() for name, field in reader.fields.items() if len(field.types) == 1}
        self._arch: str = self._fields["general.architecture"]

    def matrices(self) -> Iterator[tuple[str, Array]]:
        """See `OnnxWeights.matrices`."""
        joined: defaultdict[str, dict[str, Array]] = defaultdict(dict)
        for name, tensor in self._tensors.items():
            module = name.removesuffix(".weight")
            if len(tensor.shape) < 2:
                continue
            if module in _OUTER:
                yield _OUTER[module], self._values(name)
                continue
            layer, kind = re.fullmatch(r"blk\.(\d+)\.(\w+)", module).groups()  # type: ignore[union-attr]
            if kind in _APART:
                joined[layer][kind] = self._unpaired(kind, self._values(name))
            elif kind == "ffn_up" and f"blk.{layer}.ffn_gate.weight" not in self._tensors:
                gate, up = np.split(self._values(name), 2)
                yield f"layers.{layer}.mlp.gate_proj", gate
                yield f"layers.{layer}.mlp.up_proj", up
            else:
                yield f"layers.{layer}.{_INNER[kind]}", self._values(name)
        for layer, parts in joined.items():
            yield f"layers.{layer}.attn.qkv_proj", np.concatenate([parts[kind] for kind in _APART])

    def rotations(self) -> list[tuple[str, Rotations]]:
        """See `OnnxWeights.rotations`; made here as the runtime makes them, for its first positions."""
        bases = {key: self._told(f"rope.{key}") for key in ("freq_base", "freq_base_swa")}
        factors: list[str | None] = [name for name in self._tensors if name.startswith("rope_f")]
        size, scale = self._told("rope.dimension_count"), self._told("rope.scaling.attn_factor") or 1.0
        whole = min(_POSITIONS, self._told("context_length"))
        tables = []
        for key, base in bases.items():
            for name in (factors or [None]) if base else ():
                pace = base ** (-np.arange(0, size, 2, dtype=np.float32) / size)
                if name:
                    pace = pace / self._values(name)
                # Those of short texts are for texts as long as it was first trained on.
                short = name == "rope_factors_short.weight"
                length = self._told("rope.scaling.original_context_length") if short else whole
                positions = np.arange(length, dtype=np.float32)[:, None]
                tables.append((f"{key}, {name}", scale * np.exp(1j * positions * pace)))
        return tables

    def _told(self, key: str) -> Any:
        return self._fields.get(f"{self._arch}.{key}")

    def _values(self, name: str) -> Array:
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        values: Array = dequantize(tensor.data, tensor.tensor_type)
        return values

    def _unpaired(self, kind: str, matrix: Array) -> Array:
        """Rotary pairs lie side by side in a Llama here, and in halves of a head in what it was made from."""
        if self._arch != "llama" or kind == "attn_v":
            return matrix
        heads = self._told("attention.head_count" + ("" if kind == "attn_q" else "_kv"))
        pairs = matrix.reshape(heads, len(matrix) // heads // 2, 2, matrix.shape[1])
        return pairs.swapaxes(1, 2).reshape(matrix.shape)
