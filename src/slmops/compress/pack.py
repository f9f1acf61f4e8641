"""Packing the weights of an exported model: its matrices become blocks of four or eight bits with a scale each.

The exporter writes float32; which matrix gets how many bits is decided here, and head and embedding are written once
where they are one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slmops.recipe.compress import CompressSettings

if TYPE_CHECKING:
    import onnx

BITS = {"int4": 4, "int8": 8}

_ACCURACY = {"fp32": 1, "int8": 4}
"""The kernel's name for what it computes in."""

_DOMAIN = "com.microsoft"
_HEAD = "lm_head"
_IDS = "input_ids"


@dataclass(frozen=True)
class Packed:
    """A matrix [rows, width] in blocks along its rows, the last one of each filled up.

    Attributes:
        values: uint8 [rows, blocks, bytes of a block]; of four bits, the first of two is the lower half of a byte.
        scales: float16 [rows, blocks].
        zeros: uint8 [rows, bytes], the levels that mean zero, packed as values are; None where it is the middle one.
    """

    bits: int
    block_size: int
    width: int
    values: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]
    zeros: npt.NDArray[np.uint8] | None


def packed(matrix: npt.NDArray[np.float32], bits: int, settings: CompressSettings) -> Packed:
    """`matrix` [rows, width] rounded to nearest by the runtime's own kernel, or by k_quant's search for scales."""
    rows, width = matrix.shape
    size = settings.block_size
    filled = np.pad(matrix, ((0, 0), (0, -width % size)))
    by = _k_quant if settings.algorithm == "k_quant" else _nearest
    values, scales, zeros = by(filled, bits, size, settings.symmetric)
    return Packed(bits, size, width, values.reshape(rows, -1, size * bits // 8), scales.astype(np.float16), zeros)


def _nearest(matrix: npt.NDArray[np.float32], bits: int, size: int, symmetric: bool) -> Any:
    from onnxruntime.capi import _pybind_state as kernels

    rows, width = matrix.shape
    blocks = width // size
    values = np.zeros((rows, blocks, size * bits // 8), dtype=np.uint8)
    scales = np.zeros((rows, blocks), dtype=np.float32)
    zeros = np.zeros((rows, -(-blocks * bits // 8)), dtype=np.uint8)
    quantise = getattr(kernels, f"quantize_matmul_{bits}bits")
    quantise(values, np.ascontiguousarray(matrix.T), scales, zeros, size, rows, width, symmetric)
    return values, scales, None if symmetric else zeros


def _k_quant(matrix: npt.NDArray[np.float32], bits: int, size: int, _symmetric: bool) -> Any:
    from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

    rows = len(matrix)
    with np.errstate(divide="ignore", invalid="ignore"):  # blocks of one value have no scale to search
        levels, scales, zeros = quant_tensor_k_quant_cpu(matrix, bits, size)
    blocks = levels.astype(np.uint8).reshape(rows, -1), zeros.reshape(rows, -1)
    values, zeros = (_in_bytes(each, bits) for each in blocks)
    return values, scales.astype(np.float32).reshape(rows, -1), zeros


def _in_bytes(levels: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    if bits == 8:
        return levels
    even = np.pad(levels, ((0, 0), (0, levels.shape[1] % 2)))
    return even[:, ::2] | even[:, 1::2] * np.uint8(16)


def pack(model: onnx.ModelProto, settings: CompressSettings, *, int8_layers: Collection[int] = ()) -> None:
    """Pack the matrices of `model`, which is exported in float32 and has its weights in memory, in place.

    Args:
        int8_layers: numbers of the layers that get eight bits.
    """
    Packing(model.graph, settings, int8_layers).run()
    if not any(opset.domain == _DOMAIN for opset in model.opset_import):
        model.opset_import.add(domain=_DOMAIN, version=1)


class Packing:
    """One graph while it is packed: what it reads of weights, and what comes in their place."""

    def __init__(self, graph: onnx.GraphProto, settings: CompressSettings, int8_layers: Collection[int]) -> None:
        self._graph, self._settings, self._int8 = graph, settings, int8_layers
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._new: list[onnx.TensorProto] = []
        self._casts: list[onnx.NodeProto] = []
        self._made: dict[tuple[str, int], Packed] = {}

    def run(self) -> None:
        """Replace every product with a matrix that is to be packed, and the look-up of tokens."""
        nodes = [new for node in self._graph.node for new in self._in_place_of(node)]
        read = {name for node in nodes for name in node.input}
        nodes = [node for node in nodes if node.op_type != "Transpose" or node.output[0] in read]
        read = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        for field, items in (("node", [*self._casts, *nodes]), ("initializer", [*kept, *self._new])):
            self._graph.ClearField(field)
            getattr(self._graph, field).extend(items)

    def _in_place_of(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        bits = self._bits(node)
        if bits is None:
            yield node
        elif node.op_type == "MatMul":
            yield self._product(node, bits)
        else:
            yield from self._look_up(node, bits)

    def _bits(self, node: onnx.NodeProto) -> int | None:
        """How many a node's matrix gets; None where it stays, or is none."""
        settings = self._settings
        if node.op_type == "Gather" and node.input[1] == _IDS:
            return BITS.get(settings.embedding or settings.head)
        if node.op_type != "MatMul" or node.input[1] not in self._weights:
            return None
        if _HEAD in node.name:
            return BITS.get(settings.head)
        layer = re.search(r"layers\.(\d+)/", node.name)
        return 8 if layer and int(layer[1]) in self._int8 else BITS.get(settings.precision)

    def _product(self, node: onnx.NodeProto, bits: int) -> onnx.NodeProto:
        import onnx

        made, names = self._packed(node.input[1], bits, transposed=True)
        return onnx.helper.make_node(
            "MatMulNBits",
            [node.input[0], *names],
            node.output,
            name=f"{node.name}_Q{bits}",
            domain=_DOMAIN,
            K=made.width,
            N=len(made.values),
            bits=bits,
            block_size=made.block_size,
            accuracy_level=_ACCURACY[self._settings.activations],
        )

    def _look_up(self, node: onnx.NodeProto, bits: int) -> Iterator[onnx.NodeProto]:
        """The rows of the matrix as flat bytes; where the last block is filled up, that is cut off again."""
        import onnx

        source = node.input[0]
        turned = {each.output[0]: each.input[0] for each in self._graph.node if each.op_type == "Transpose"}
        made, (values, *others) = self._packed(turned.get(source, source), bits, transposed=source in turned)
        base = node.name.removesuffix("/Gather")
        shape = self._numbers(f"{base}/shape", [len(made.values), made.values[0].size])
        whole = made.scales.shape[1] * made.block_size
        out = node.output[0] if whole == made.width else f"{base}/filled"
        yield onnx.helper.make_node("Reshape", [values, shape], [f"{base}/rows"], name=f"{base}/Reshape")
        yield onnx.helper.make_node(
            "GatherBlockQuantized",
            [f"{base}/rows", _IDS, *others],
            [out],
            name=f"{base}/GatherBlockQuantized",
            domain=_DOMAIN,
            bits=bits,
            block_size=made.block_size,
            gather_axis=0,
            quantize_axis=1,
        )
        if whole != made.width:
            bounds = [self._numbers(f"{base}/{name}", [n]) for name, n in (("from", 0), ("to", made.width), ("of", -1))]
            yield onnx.helper.make_node("Slice", [out, *bounds], node.output, name=f"{base}/Slice")

    def _packed(self, name: str, bits: int, *, transposed: bool) -> tuple[Packed, list[str]]:
        """The matrix `name` and what its parts are called; packed once, however many read it."""
        import onnx

        parts = [f"{name}_Q{bits}", f"{name}_Q{bits}_scales", f"{name}_Q{bits}_zeros"]
        if (name, bits) not in self._made:
            matrix = onnx.numpy_helper.to_array(self._weights[name])
            made = packed(matrix.T if transposed else matrix, bits, self._settings)
            self._add(parts[0], made.values)
            self._add_scales(parts[1], made.scales)
            if made.zeros is not None:
                self._add(parts[2], made.zeros)
            self._made[name, bits] = made
        made = self._made[name, bits]
        return made, parts if made.zeros is not None else parts[:2]

    def _add_scales(self, name: str, scales: npt.NDArray[np.float16]) -> None:
        """The kernels want float32: as it loads a file, the runtime casts what this keeps in half as many bytes."""
        import onnx

        self._add(f"{name}_fp16", scales)
        self._casts.append(
            onnx.helper.make_node("Cast", [f"{name}_fp16"], [name], name=f"{name}/Cast", to=onnx.TensorProto.FLOAT)
        )

    def _add(self, name: str, array: npt.NDArray[Any]) -> None:
        import onnx

        self._new.append(onnx.numpy_helper.from_array(array, name))

    def _numbers(self, name: str, values: list[int]) -> str:
        self._add(name, np.array(values, dtype=np.int64))
        return name
