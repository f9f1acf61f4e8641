"""An ONNX language model as a graph of OpenVINO for sequences laid end to end, whose keys and values lie in blocks.

The values stay as they are packed; only what multiplies them is another. The few operators that the exporter of
onnxruntime-genai writes are translated one by one, so whatever it exports runs here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slmops.engines.onnx_body import STATES
from slmops.engines.onnx_last import LOGITS
from slmops.engines.onnx_weights import levels_of, whole_graph
from slmops.engines.openvino_attention import Paging, attention
from slmops.errors import BadInput

if TYPE_CHECKING:
    import onnx
    import openvino

_HINT = "run it by onnxruntime-genai"

_SHIFT = {4: 0x88, 8: 0x80}
"""Turns levels around the middle one into signed ones, of a byte's two at once."""

_IN_INT8 = 4
"""What the exporter's operator calls that."""

Node = Any
"""Of OpenVINO's operators, which have no types."""


@dataclass(frozen=True)
class Paged:
    """A translated model.

    Attributes:
        longest: tokens of a sequence that its rotary tables have room for.
        rounds_inputs: whether what its packed weights are multiplied with is rounded to eight bits.
        has_head: whether it gives logits.
    """

    graph: openvino.Model
    longest: int
    rounds_inputs: bool
    has_head: bool


def paged(folder: Path, *, head_size: int) -> Paged:
    """The model in a folder of onnxruntime-genai.

    Inputs are `input_ids` int64 [tokens], those of `Paging`, and `wanted` int64 [n], the places of the tokens whose
    logits come out: float32 [n, vocabulary]. Of a graph that ends before its head there is no `wanted`, and the last
    hidden states of all tokens come out: float32 [tokens, width].

    Raises:
        BadInput: the graph has an operator, or something of one, that is not translated.
    """
    import openvino

    made = _Translation(whole_graph(folder), head_size)
    graph = openvino.Model([made.output()], made.paging.inputs(), "paged")
    return Paged(graph, made.paging.longest, made.rounds_inputs, made.has_head)


class _Translation:
    """One graph while it is translated: what each of its names has become."""

    def __init__(self, graph: onnx.GraphProto, head_size: int) -> None:
        import openvino.opset15 as ops

        # Beside logits a graph may give states, which are for another runtime.
        self.has_head = any(output.name == LOGITS for output in graph.output)
        self._last = LOGITS if self.has_head else STATES
        self._ops, self._nodes = ops, _needed(graph, self._last)
        self._tensors = _tensors(graph)
        self._stored_in = {
            node.output[0]: node.input[0] for node in graph.node if node.op_type in ("Cast", "Transpose", "Reshape")
        }
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._matrices: dict[str, Node] = {}
        self.paging, self.rounds_inputs = Paging(head_size), False
        ids = self.paging.input("input_ids", [-1], "i64")
        self._made: dict[str, Node] = {"input_ids": ops.unsqueeze(ids, np.int64(1))}

    def output(self) -> Node:
        ops = self._ops
        for node in self._nodes:
            if self._is_stored(node):
                continue
            if (translate := _TRANSLATED.get(node.op_type)) is None:
                raise BadInput(f"OpenVINO is not told of the operator {node.op_type}", hint=_HINT)
            if LOGITS in node.output:
                # The head is a large part of a small model, and only the last token of a sequence has a use for it.
                wanted = self.paging.input("wanted", [-1], "i64")
                hidden = self._made[node.input[0]]
                self._made[node.input[0]] = ops.gather(hidden, wanted, np.int64(0))
            outputs = translate(self, node, {each.name: _value(each) for each in node.attribute})
            self._made |= {name: made for name, made in zip(node.output, outputs, strict=False) if name}
        return ops.squeeze(self._made[self._last], np.int64(1))

    def _is_stored(self, node: onnx.NodeProto) -> bool:
        """Whether it only turns or casts what is stored, which is done where that is read."""
        return node.op_type == "Constant" or (node.output[0] in self._stored_in and node.input[0] in self._tensors)

    def _array(self, name: str) -> npt.NDArray[Any]:
        """A stored tensor, in the type and the order that it is stored in."""
        import onnx

        while name in self._stored_in:
            name = self._stored_in[name]
        if name not in self._arrays:
            self._arrays[name] = onnx.numpy_helper.to_array(self._tensors[name])
        return self._arrays[name]

    def _in(self, node: onnx.NodeProto, index: int) -> Node:
        name = node.input[index]
        return self._made[name] if name in self._made else self._ops.constant(self._array(name))

    # Matrices and look-ups.

    def product(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> Sequence[Node]:
        return [self._ops.matmul(self._in(node, 0), self._matrix(node.input[1]), False, True)]

    def _matrix(self, name: str) -> Node:
        """A stored matrix in float32 as [outputs, inputs], once, though a head may be an embedding too."""
        while name in self._stored_in:
            name = self._stored_in[name]
        if name not in self._matrices:
            self._matrices[name] = self._ops.constant(np.ascontiguousarray(self._array(name).T))
        return self._matrices[name]

    def looked_up(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> Sequence[Node]:
        turned = node.input[0] in self._stored_in
        table = self._matrix(node.input[0]) if turned else self._in(node, 0)
        return [self._ops.gather(table, self._in(node, 1), np.int64(0))]

    def packed_product(self, node: onnx.NodeProto, given: Mapping[str, Any]) -> Sequence[Node]:
        import openvino

        self.rounds_inputs |= given.get("accuracy_level") == _IN_INT8
        bits, size, rows = given["bits"], given["block_size"], given["N"]
        packed = self._array(node.input[1])
        blocks = packed.size * 8 // bits // rows // size
        shape = [rows, blocks, size]
        zeros = self._zeros(node, bits, rows, blocks)
        kind = ("u" if zeros is not None else "i") + str(bits)
        values = packed if zeros is not None else packed ^ np.uint8(_SHIFT[bits])
        ops, tensor = self._ops, openvino.Tensor(np.ascontiguousarray(values), shape, getattr(openvino.Type, kind))
        # The array ends with this call, and a constant would go on to read it.
        stored = ops.constant(tensor, shared_memory=False)
        weights = ops.convert(stored, "f32")
        if zeros is not None:
            weights = ops.subtract(weights, ops.convert(ops.constant(zeros.reshape(rows, blocks, 1)), "f32"))
        scales = self._array(node.input[2]).reshape(rows, blocks, 1)
        weights = ops.multiply(weights, ops.convert(ops.constant(scales), "f32"))
        weights = ops.reshape(weights, np.array([rows, blocks * size]), False)
        given_in = self._in(node, 0)
        if blocks * size > given["K"]:
            given_in = ops.pad(given_in, [0, 0, 0], [0, 0, blocks * size - given["K"]], "constant", np.float32(0))
        return [ops.matmul(given_in, weights, False, True)]

    def _zeros(self, node: onnx.NodeProto, bits: int, rows: int, blocks: int) -> npt.NDArray[np.uint8] | None:
        """uint8 [rows, blocks] where a node has zero points."""
        if len(node.input) < 4 or not node.input[3]:
            return None
        return np.ascontiguousarray(levels_of(self._array(node.input[3]).reshape(rows, -1), bits)[:, :blocks])

    def packed_looked_up(self, node: onnx.NodeProto, given: Mapping[str, Any]) -> Sequence[Node]:
        """Rows are looked up as they are packed, and unpacked then."""
        ops, bits, size = self._ops, given["bits"], given["block_size"]
        scales = self._array(node.input[2])
        scales = scales.reshape(len(scales), -1, 1)
        rows, blocks = scales.shape[:2]
        ids, axis = self._in(node, 1), np.int64(0)
        values = ops.gather(ops.constant(self._array(node.input[0]).reshape(rows, blocks, -1)), ids, axis)
        if bits == 4:
            low, high = ops.bitwise_and(values, np.uint8(15)), ops.bitwise_right_shift(values, np.uint8(4))
            pairs = ops.concat([ops.unsqueeze(half, np.int64(-1)) for half in (low, high)], -1)
            values = ops.reshape(pairs, np.array([0, 0, blocks, size]), True)
        zeros = self._zeros(node, bits, rows, blocks)
        middle = (
            np.float32(1 << bits - 1)
            if zeros is None
            else ops.convert(ops.gather(ops.constant(zeros.reshape(rows, blocks, 1)), ids, axis), "f32")
        )
        levels = ops.subtract(ops.convert(values, "f32"), middle)
        found = ops.multiply(levels, ops.convert(ops.gather(ops.constant(scales), ids, axis), "f32"))
        return [ops.reshape(found, np.array([0, 0, blocks * size]), True)]

    # Norms, sums and shapes.

    def norm(self, node: onnx.NodeProto, given: Mapping[str, Any]) -> Sequence[Node]:
        return [self._root_mean_square(self._in(node, 0), self._in(node, 1), given["epsilon"])]

    def sum_and_norm(self, node: onnx.NodeProto, given: Mapping[str, Any]) -> Sequence[Node]:
        total = self._ops.add(self._in(node, 0), self._in(node, 1))
        return [self._root_mean_square(total, self._in(node, 2), given["epsilon"]), None, None, total]

    def _root_mean_square(self, values: Node, weight: Node, epsilon: float) -> Node:
        """Root mean square (Zhang and Sennrich 2019), in the form that the runtime knows for one operator."""
        ops = self._ops
        mean = ops.reduce_mean(ops.power(values, np.float32(2)), np.array([-1]), True)
        inverse = ops.divide(np.float32(1), ops.sqrt(ops.add(mean, np.float32(epsilon))))
        return ops.multiply(ops.multiply(values, inverse), weight)

    def sum(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> Sequence[Node]:
        return [self._ops.add(self._in(node, 0), self._in(node, 1))]

    def times(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> Sequence[Node]:
        return [self._ops.multiply(self._in(node, 0), self._in(node, 1))]

    def sigmoid(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> Sequence[Node]:
        return [self._ops.sigmoid(self._in(node, 0))]

    def gelu(self, node: onnx.NodeProto, given: Mapping[str, Any]) -> Sequence[Node]:
        return [self._ops.gelu(self._in(node, 0), "tanh" if given.get("approximate") == b"tanh" else "erf")]

    def split(self, node: onnx.NodeProto, given: Mapping[str, Any]) -> Sequence[Node]:
        parts: list[Node] = self._ops.variadic_split(
            self._in(node, 0), np.int64(given["axis"]), self._in(node, 1)
        ).outputs()
        return parts

    def reshape(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> Sequence[Node]:
        return [self._ops.reshape(self._in(node, 0), self._in(node, 1), True)]

    def slice(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> Sequence[Node]:
        begin, end, axes = (self._in(node, i) for i in (1, 2, 3))
        return [self._ops.slice(self._in(node, 0), begin, end, np.array([1]), axes)]

    def attention(self, node: onnx.NodeProto, given: Mapping[str, Any]) -> Sequence[Node]:
        if given.get("softcap") or given.get("rotary_interleaved") or not given.get("do_rotary") or any(node.input[9:]):
            raise BadInput("OpenVINO is not told of attention with capped logits, sinks or a bias", hint=_HINT)
        parts = [self._made[name] for name in node.input[:3] if name]
        tables = [(name, self._array(name)) for name in node.input[7:9]]
        return [attention(self.paging, parts, tables, given)]


_TRANSLATED = {
    "MatMul": _Translation.product,
    "Gather": _Translation.looked_up,
    "MatMulNBits": _Translation.packed_product,
    "GatherBlockQuantized": _Translation.packed_looked_up,
    "SimplifiedLayerNormalization": _Translation.norm,
    "SkipSimplifiedLayerNormalization": _Translation.sum_and_norm,
    "Add": _Translation.sum,
    "Mul": _Translation.times,
    "Sigmoid": _Translation.sigmoid,
    "Gelu": _Translation.gelu,
    "Split": _Translation.split,
    "Reshape": _Translation.reshape,
    "Slice": _Translation.slice,
    "GroupQueryAttention": _Translation.attention,
}
"""What the exporter writes, and the packing after it."""


def _needed(graph: onnx.GraphProto, last: str) -> list[onnx.NodeProto]:
    """The nodes that `last` comes from, but for the lengths of sequences, which the graph counts from a mask."""
    makers = {name: node for node in graph.node for name in node.output if name}
    needed, asked = set[str](), [last]
    while asked:
        node = makers.get(asked.pop())
        if node is not None and node.output[0] not in needed:
            needed.add(node.output[0])
            asked += node.input[:3] if node.op_type == "GroupQueryAttention" else node.input
    return [node for node in graph.node if node.output[0] in needed]


def _tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """What is stored. Of two rotary tables, one for short texts and one for long, it is that for short ones."""
    found = {tensor.name: tensor for tensor in graph.initializer} | dict(_constants(graph))
    for node in graph.node:
        if node.op_type == "If":
            (short,) = (each.g for each in node.attribute if each.name == "else_branch")
            inside = dict(_constants(short)) | {tensor.name: tensor for tensor in short.initializer}
            found |= {name: inside[out.name] for name, out in zip(node.output, short.output, strict=True)}
    return found


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    return ((node.output[0], node.attribute[0].t) for node in graph.node if node.op_type == "Constant")


def _value(attribute: onnx.AttributeProto) -> Any:
    import onnx

    return onnx.helper.get_attribute_value(attribute)
