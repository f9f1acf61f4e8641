"""The weights of an ONNX language model, read back from its file as they are multiplied with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slmops.engines.blocks import Blocks
from slmops.errors import BadInput

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[np.float32]

Rotations = npt.NDArray[np.complexfloating[Any, Any]]
"""By how much each position turns each pair of features, [positions, pairs]."""

EMBEDDING = "embed_tokens"

_PRODUCTS = ("MatMul", "MatMulNBits")
_LOOKUPS = ("Gather", "GatherBlockQuantized")


class OnnxWeights:
    """The matrices and the rotary tables of the model in a folder."""

    def __init__(self, folder: Path) -> None:
        self._graph = whole_graph(folder)
        # What a run may give in place of a default, as slots for adapters are, is no weight.
        given = {one.name for one in self._graph.input}
        self._tensors = {tensor.name: tensor for tensor in self._graph.initializer if tensor.name not in given}
        self._cast = {
            node.output[0]: node.input[0]
            for node in self._graph.node
            if node.op_type == "Cast" and node.input[0] in self._tensors
        }
        self._turned = {node.output[0]: node.input[0] for node in self._graph.node if node.op_type == "Transpose"}
        # Where the last block of an embedding's row is filled up, what fills it is sliced off again.
        self._ends = {node.input[0]: node.input[2] for node in self._graph.node if node.op_type == "Slice"}
        self._flat = {node.output[0]: node.input[0] for node in self._graph.node if node.op_type == "Reshape"}

    def parts(self) -> Iterator[tuple[str, Blocks | Array]]:
        """All that a model is made of: matrices as they are stored, named as by `matrices`, with norms and biases.

        Those have the names of their tensors, as `layers.3.input_layernorm.weight`, float32 [features].
        """
        for name, tensor in self._tensors.items():
            if name.startswith("model.layers.") and len(tensor.dims) == 1 and name.endswith((".weight", ".bias")):
                yield name.removeprefix("model."), self._array(tensor)
        for node in self._graph.node:
            if node.op_type in _PRODUCTS and node.input[1] in self._tensors:
                yield product_name(node.name), self._stored_product(node)
            elif node.op_type in _LOOKUPS and node.input[1] == "input_ids":
                yield EMBEDDING, self._stored_rows(node)

    def matrices(self) -> Iterator[tuple[str, Array]]:
        """Names as `layers.3.attn.o_proj`, and each matrix as [outputs, inputs]; the embedding as [tokens, width]."""
        for name, part in self.parts():
            if isinstance(part, Blocks) or part.ndim == 2:
                yield name, part.values() if isinstance(part, Blocks) else part

    def rotations(self) -> list[tuple[str, Rotations]]:
        """One for each table, with its name."""
        tensors = {tensor.name: tensor for tensor in _all_tensors(self._graph)}
        return [
            (name, self._array(tensor) + 1j * self._array(tensors[name.replace("cos", "sin", 1)]))
            for name, tensor in tensors.items()
            if name.startswith("cos_cache")
        ]

    def _stored_product(self, node: onnx.NodeProto) -> Blocks | Array:
        if node.op_type == "MatMul":
            return self._array(self._tensors[node.input[1]]).T
        given = _numbers(node)
        return self._blocks(*node.input[1:4], bits=given["bits"], size=given["block_size"], width=given["K"])

    def _stored_rows(self, node: onnx.NodeProto) -> Blocks | Array:
        if node.op_type == "Gather":
            turned = node.input[0] in self._turned
            matrix = self._array(self._tensors[self._turned.get(node.input[0], node.input[0])])
            return matrix.T if turned else matrix
        given = _numbers(node)
        values, _, *others = node.input
        end = self._tensors.get(self._ends.get(node.output[0], ""))
        width = None if end is None else int(self._array(end)[0])
        values = self._flat.get(values, values)
        return self._blocks(values, *others, bits=given["bits"], size=given["block_size"], width=width)

    def _blocks(
        self, values: str, scales: str, zeros: str | None = None, *, bits: int, size: int, width: int | None
    ) -> Blocks:
        """Without a width the last block of a row is full."""
        scale = self._array(self._tensors[self._cast.get(scales, scales)])
        rows, count = len(scale), scale.size // len(scale)
        levels = levels_of(self._array(self._tensors[values]).reshape(rows, -1), bits).reshape(rows, count, size)
        middle = None
        if zeros:
            middle = levels_of(self._array(self._tensors[zeros]).reshape(rows, -1), bits)[:, :count]
        return Blocks(bits, width or count * size, levels, scale.reshape(rows, count), middle)

    @staticmethod
    def _array(tensor: onnx.TensorProto) -> npt.NDArray[Any]:
        import onnx

        return onnx.numpy_helper.to_array(tensor)


def product_name(node: str) -> str:
    """`layers.3.attn.o_proj` of `/model/layers.3/attn/o_proj/MatMul_Q4`."""
    return re.sub(r"/MatMul(_\w+)?$", "", node).removeprefix("/").removeprefix("model/").replace("/", ".")


def levels_of(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Levels [rows, n] of packed ones [rows, bytes]; of four bits, the lower half of a byte comes first."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def whole_graph(folder: Path) -> onnx.GraphProto:
    """The graph with the data of its tensors, which mostly stand in a file beside it.

    onnx itself refuses that file where it has two names, as every file of the store has that a bundle links to.

    Raises:
        BadInput: the data would be outside of the folder.
    """
    import onnx
    from onnx.external_data_helper import ExternalDataInfo

    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    for tensor in _all_tensors(graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        info = ExternalDataInfo(tensor)
        place = folder / info.location
        if Path(info.location).name != info.location or place.is_symlink():
            raise BadInput(f"{folder}: the weights {tensor.name} lead out of the folder")
        with place.open("rb") as file:
            file.seek(info.offset or 0)
            tensor.raw_data = file.read(info.length or -1)
        tensor.data_location = onnx.TensorProto.DEFAULT
    return graph


def _numbers(node: onnx.NodeProto) -> Mapping[str, int]:
    return {attribute.name: attribute.i for attribute in node.attribute}


def _all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Those of a branch too: a model with two kinds of positions has a table in each, as the value of a node."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_tensors(attribute.g)
            if node.op_type == "Constant" and attribute.name == "value":
                tensor = attribute.t
                tensor.name = node.output[0]
                yield tensor
