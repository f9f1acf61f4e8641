"""What an ONNX graph from outside asks of the runtime: operators of others, and files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput

if TYPE_CHECKING:
    import onnx

_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""Of operators that onnxruntime has itself; those of any other domain come from a library."""

_MOST_GRAPH_BYTES = 1 << 31
"""No message of protobuf is longer."""


def check_graph(path: Path) -> set[str]:
    """Names of the files beside the graph `path` that hold its weights.

    Raises:
        BadInput: it is no graph, has operators that onnxruntime does not bring with it, or weights that lie elsewhere
            or beyond the end of their file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise BadInput(f"there is no {path}", hint="copy the folder again from where it was made")
    if path.stat().st_size > _MOST_GRAPH_BYTES:
        raise BadInput(f"{path} has {path.stat().st_size} bytes, and a graph has at most {_MOST_GRAPH_BYTES}")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise BadInput(f"{path} is no ONNX model: {error}", hint="copy it again from where it was made") from None
    if not model.graph.node:
        raise BadInput(f"{path} is no ONNX model: it has no graph", hint="copy it again from where it was made")
    beside = set[str]()
    for graph in _graphs(model):
        if odd := next((node for node in graph.node if node.domain not in _DOMAINS), None):
            raise BadInput(f"{path}: {odd.op_type} is an operator of {odd.domain!r}, which onnxruntime does not have")
        for tensor in _tensors(graph):
            beside |= _file_of(tensor, path)
    return beside


def _graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """The graph, those inside of its nodes, and the bodies of its functions."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _tensors(graph: Any) -> Iterator[onnx.TensorProto]:
    yield from getattr(graph, "initializer", ())
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else []
            yield from attribute.tensors


def _file_of(tensor: onnx.TensorProto, path: Path) -> set[str]:
    import onnx

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return set()
    told = {entry.key: entry.value for entry in tensor.external_data}
    name = told.get("location", "")
    if not name or Path(name).name != name:
        raise BadInput(f"{path}: the weights {tensor.name} lie outside of its folder: {name!r}")
    try:
        begin, length = int(told.get("offset", 0)), int(told.get("length", 0))
        size = (path.parent / name).stat().st_size
    except (ValueError, OSError) as error:
        raise BadInput(f"{path}: the weights {tensor.name} cannot be found: {error}") from None
    if begin < 0 or length < 0 or begin + length > size:
        raise BadInput(
            f"{path}: the weights {tensor.name} end at byte {begin + length} of {name}, which has {size}",
            hint="it was cut short: copy it again from where it was made",
        )
    return {name}
