"""What an ONNX language model says about itself, read from its graph without its weights."""

from __future__ import annotations

import math
from pathlib import Path

_QUANTISED = "MatMulNBits"
_LOOKUPS = ("cos_cache", "sin_cache")
_SIDE_INPUTS = {"MatMulNBits": slice(1, None), "GatherBlockQuantized": slice(0, None)}
"""Inputs of quantised operators that hold packed weights and their scales."""


def describe(path: Path) -> tuple[str, int]:
    """Precision of the weight matrices, e.g. `int4` or `int4+int8`, and the number of weights.

    Packed weights are counted as the values they stand for; a head stored together with its embedding counts once.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights: dict[str, int] = {}
    bits: set[int] = set()
    packed = set(_LOOKUPS)
    for node in graph.node:
        packed.update(node.input[_SIDE_INPUTS.get(node.op_type, slice(0, 0))])
        if node.op_type == _QUANTISED:
            given = {attribute.name: attribute.i for attribute in node.attribute}
            weights[node.input[1]] = given["K"] * given["N"]
            bits.add(given["bits"])
    for name, tensor in tensors.items():
        if name not in packed and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            weights[name] = math.prod(tensor.dims)
    precision = "+".join(f"int{width}" for width in sorted(bits)) or "float32"
    return precision, sum(weights.values())
