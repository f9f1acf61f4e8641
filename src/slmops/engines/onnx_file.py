"""What an ONNX language model says about itself, read from its graph without its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slmops.engines.base import EngineInfo

_PRODUCT = "MatMulNBits"
_LOOKUP = "GatherBlockQuantized"
_POSITIONS = ("cos_cache", "sin_cache")
"""Begin the names of rotary tables, of which a model may have one for each kind of layer."""

_SIDE_INPUTS = {_PRODUCT: slice(1, None), _LOOKUP: slice(0, None)}
"""Inputs of quantised operators that hold packed weights and their scales."""


def describe(path: Path) -> tuple[str, int]:
    """What the weight matrices are stored in, e.g. `int4` or `int4+int8`, and the number of weights.

    Packed weights are counted as the values they stand for; a head stored together with its embedding counts once.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    # What a run may give in place of a default is no weight.
    given = {one.name for one in graph.input}
    packed, bits = _packed_weights(graph, tensors)
    sides = {name for node in graph.node for name in node.input[_SIDE_INPUTS.get(node.op_type, slice(0, 0))]}
    # Scales are stored in fewer bits than they are used in.
    sides |= {node.input[0] for node in graph.node if node.op_type == "Cast" and node.output[0] in sides}
    plain = {
        name: tensor.dims
        for name, tensor in tensors.items()
        if name not in sides | given
        and not name.startswith(_POSITIONS)
        and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
    stored = [f"int{width}" for width in sorted(bits)]
    if not stored or any(len(dims) > 1 for dims in plain.values()):
        stored.append("float32")
    return "+".join(stored), sum(packed.values()) + sum(map(math.prod, plain.values()))


def _packed_weights(graph: Any, tensors: Mapping[str, Any]) -> tuple[dict[str, int], set[int]]:
    """How many values each packed matrix stands for, and in how many bits they are."""
    import onnx

    weights: dict[str, int] = {}
    bits: set[int] = set()
    reshaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Reshape"}
    # Where the last block of a row is filled up, what fills it is sliced off again.
    ends = {node.input[0]: node.input[2] for node in graph.node if node.op_type == "Slice"}
    for node in graph.node:
        given = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == _PRODUCT:
            weights[node.input[1]] = given["K"] * given["N"]
            bits.add(given["bits"])
        source = reshaped.get(node.input[0], node.input[0]) if node.op_type == _LOOKUP else ""
        if source in tensors:
            rows, *rest = tensors[source].dims
            end = tensors.get(ends.get(node.output[0], ""))
            width = math.prod(rest) * 8 // given["bits"] if end is None else int(onnx.numpy_helper.to_array(end)[0])
            weights.setdefault(source, rows * width)
            bits.add(given["bits"])
    return weights, bits


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
