"""Slots for adapters in an exported model; see `slmops.engines.onnx_slots` for what one adds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from slmops.engines.onnx_slots import ADDS, MASK, READS, WRITES, Slots
from slmops.engines.onnx_weights import product_name
from slmops.errors import BadInput

if TYPE_CHECKING:
    import onnx

_PRODUCTS = ("MatMul", "MatMulNBits")
QKV, PARTS = "qkv_proj", ("q_proj", "k_proj", "v_proj")


def add_slots(model: onnx.ModelProto, slots: Slots) -> None:
    """Put slots beside products of `model`, in place. The inputs that it gets are initialisers that a run may replace.

    Args:
        slots: named as `layers.3.attn.q_proj`; where a model makes queries, keys and values in one product, those of
            all three or none.

    Raises:
        BadInput: the graph has no such product, or one of other sizes.
    """
    graph, found = model.graph, dict(_products(model.graph))
    grouped: dict[str, list[str]] = {}
    for slot in slots:
        grouped.setdefault(_product(slot, found), []).append(slot)
    if missing := sorted(grouped.keys() - found.keys()):
        raise BadInput(f"the exported model has no product {missing[0]}, which an adapter is to change")
    added = {found[name].name: list(_beside(found[name], names)) for name, names in grouped.items()}
    nodes = [new for node in graph.node for new in (node, *added.get(node.name, ()))]
    graph.ClearField("node")
    graph.node.extend(nodes)
    for slot, (inputs, outputs) in slots.items():
        _give(graph, slot + READS, [inputs, f"{slot}.ranks"], np.zeros((inputs, 0), dtype=np.float32))
        _give(graph, slot + WRITES, [f"{slot}.ranks", outputs], np.zeros((0, outputs), dtype=np.float32))
    _give(graph, MASK, ["adapter_rows", 1, "adapter_ranks"], np.ones((1, 1, 1), dtype=np.float32))


def _product(slot: str, found: Collection[str]) -> str:
    layer, _, part = slot.rpartition(".")
    fused = f"{layer}.{QKV}"
    return fused if part in PARTS and fused in found else slot


def _products(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    for node in graph.node:
        if node.op_type in _PRODUCTS:
            yield product_name(node.name), node


def _beside(node: onnx.NodeProto, names: Sequence[str]) -> Iterator[onnx.NodeProto]:
    """The nodes of all slots of one product, which gets another output."""
    import onnx

    make = onnx.helper.make_node
    result, before = node.output[0], f"{node.output[0]}/before_adapter"
    node.output[0] = before
    parts = []
    # What one product makes of several stands in this order.
    for slot in sorted(names, key=lambda slot: PARTS.index(_last(slot)) if len(names) > 1 else 0):
        low, seen, update = (f"{slot}/{what}" for what in ("low", "seen", "update"))
        yield make("MatMul", [node.input[0], slot + READS], [low], name=f"{slot}/lora_A/MatMul")
        yield make("Mul", [low, MASK], [seen], name=f"{slot}/lora_mask/Mul")
        yield make("MatMul", [seen, slot + WRITES], [update], name=f"{slot}/lora_B/MatMul")
        parts.append(update)
    if len(parts) > 1:
        whole = f"{node.name}/updates"
        yield make("Concat", parts, [whole], name=f"{node.name}/lora/Concat", axis=-1)
        parts = [whole]
    yield make("Add", [before, parts[0]], [result], name=f"{node.name}{ADDS}")


def _last(slot: str) -> str:
    return slot.rpartition(".")[2]


def _give(graph: onnx.GraphProto, name: str, shape: Sequence[int | str], default: np.ndarray) -> None:
    import onnx

    graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    graph.initializer.append(onnx.numpy_helper.from_array(default, name))
