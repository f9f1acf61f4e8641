"""Cutting the language head off an exported model that labels: its graph ends at the last hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slmops.engines.onnx_body import STATES

if TYPE_CHECKING:
    import onnx

LOGITS = "logits"


def behead(model: onnx.ModelProto) -> None:
    """Let the graph of `model` end where its head begins, in place; weights that nothing reads any more are not kept.

    The key-value cache that it would give back goes too: there is no token to come.
    """
    import onnx

    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    node = made_by[LOGITS]
    # Between head and output stand casts and scalings alone.
    while not _multiplies(node):
        node = made_by[node.input[0]]
    states = node.input[0]
    wanted = {states}
    for candidate in reversed(graph.node):
        if wanted & set(candidate.output):
            wanted |= set(candidate.input)
    kept = [candidate for candidate in graph.node if wanted & set(candidate.output)]
    for candidate in kept:
        for names in (candidate.input, candidate.output):
            names[:] = [STATES if name == states else name for name in names]
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    inputs = [given for given in graph.input if given.name in wanted]
    output = onnx.helper.make_tensor_value_info(STATES, onnx.TensorProto.FLOAT, ["batch_size", "sequence_length", None])
    for field, items in (("node", kept), ("initializer", weights), ("input", inputs), ("output", [output])):
        graph.ClearField(field)
        getattr(graph, field).extend(items)
    graph.ClearField("value_info")


def _multiplies(node: onnx.NodeProto) -> bool:
    return node.op_type in ("MatMul", "Gemm")
