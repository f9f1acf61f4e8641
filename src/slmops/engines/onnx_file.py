"""What an ONNX language model says about itself, read from its graph without its weights."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path

from slmops.engines.base import EngineInfo

_QUANTISED = "MatMulNBits"
_LOOKED_UP = "GatherBlockQuantized"
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
    reshaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Reshape"}
    shared = {node.input[1] for node in graph.node if node.op_type == _QUANTISED}
    for node in graph.node:
        packed.update(node.input[_SIDE_INPUTS.get(node.op_type, slice(0, 0))])
        given = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == _QUANTISED:
            weights[node.input[1]] = given["K"] * given["N"]
            bits.add(given["bits"])
        source = reshaped.get(node.input[0], node.input[0]) if node.op_type == _LOOKED_UP else ""
        if source in tensors and source not in shared:
            weights[source] = math.prod(tensors[source].dims) * 8 // given["bits"]
            bits.add(given["bits"])
    for name, tensor in tensors.items():
        if name not in packed and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            weights[name] = math.prod(tensor.dims)
    precision = "+".join(f"int{width}" for width in sorted(bits)) or "float32"
    return precision, sum(weights.values())


def info_of(folder: Path, engine: str, *, context: int, threads: int) -> EngineInfo:
    """What runs the ONNX model in `folder`; `engine` is the name of its distribution too."""
    files = [path for path in folder.iterdir() if path.name.endswith((".onnx", ".onnx.data"))]
    precision, parameters = describe(folder / "model.onnx")
    return EngineInfo(
        engine=engine,
        version=version(engine),
        precision=precision,
        weights_bytes=sum(path.stat().st_size for path in files),
        parameters=parameters,
        context_tokens=context,
        threads=threads,
    )
