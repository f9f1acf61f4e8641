"""The graph of a language model with its head where it is wanted alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slmops.engines.onnx_slots import without_slots
from slmops.errors import BadInput

if TYPE_CHECKING:
    import onnx

LOGITS = "logits"

WANTED = "wanted"
"""The input that is added: places in the run whose logits are wanted, int64 [n]."""

_PRODUCTS = ("MatMul", "MatMulNBits", "Gemm")


def with_wanted(path: Path, *, slots: bool = False) -> bytes:
    """The graph in a file, without its weights, whose `logits` are [rows, n, vocabulary] for the n places in `WANTED`.

    The head is a fifth of the work of a small model, and of a prompt's tokens the last one's logits alone are wanted.

    Args:
        slots: whether those for adapters are left in.

    Raises:
        BadInput: it is no language model's.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    if not slots:
        without_slots(graph)
    head, at = _head(graph)
    states = head.input[0]
    head.input[0] = f"{states}/{WANTED}"
    graph.node.insert(at, onnx.helper.make_node("Gather", [states, WANTED], [head.input[0]], axis=1))
    graph.input.append(onnx.helper.make_tensor_value_info(WANTED, onnx.TensorProto.INT64, [WANTED]))
    graph.ClearField("value_info")
    for output in graph.output:
        if output.name == LOGITS:
            output.type.tensor_type.shape.dim[1].dim_param = WANTED
    written: bytes = model.SerializeToString()
    return written


def _head(graph: onnx.GraphProto) -> tuple[onnx.NodeProto, int]:
    """The product that makes the logits, and where it stands; between the two are casts and scalings alone."""
    made_by = {name: (node, at) for at, node in enumerate(graph.node) for name in node.output}
    node, at = made_by.get(LOGITS, (None, 0))
    while node is not None and node.op_type not in _PRODUCTS:
        node, at = made_by.get(node.input[0], (None, 0))
    if node is None:
        raise BadInput(f"no product makes `{LOGITS}` in its graph", hint="export it again")
    return node, at
