"""Slots of an ONNX language model: inputs beside its products that an adapter fills, and that are empty by default.

A slot named `layers.3.attn.q_proj` adds ((x · A) · mask) · B to what the product gives, where A [inputs, ranks] and
B [ranks, outputs] come with a run, and `mask` [rows, 1, ranks] says which ranks a row of the batch sees. Without A
and B there are no ranks, and nothing is added (LoRA: Hu et al. 2021, equation 3, its scale in B).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slmops.errors import BadInput

if TYPE_CHECKING:
    import onnx

MASK = "adapter_mask"
"""Float32 [rows or 1, 1, ranks or 1], all ones by default."""

READS, WRITES = ".lora_A", ".lora_B"
"""End the names of a slot's two inputs."""

ADDS = "/lora/Add"
"""Ends the name of the node that adds what slots give to a product."""

FILE = ".onnx_adapter"
"""Ends the name of an adapter's file, in the form that onnxruntime reads (`onnxruntime.AdapterFormat`)."""

ERRORS_ALONE = 3
"""The runtime's level of what it logs: it would warn of every input that has a default."""

Array = npt.NDArray[np.float32]
Slots = Mapping[str, tuple[int, int]]
"""Inputs and outputs of each slot's product."""


@dataclass(frozen=True, eq=False)
class OnnxAdapter:
    """An adapter that fits the slots of a model; two are the same only when they are one object.

    Attributes:
        ranks: of its widest slot.
        matrices: float32, by the names of the inputs; those of slots that it does not fill are left out.
    """

    ranks: int
    matrices: Mapping[str, Array]

    @classmethod
    def load(cls, file: Path, slots: Slots) -> OnnxAdapter:
        """The adapter in `file`.

        Raises:
            BadInput: the model has no slots, or the file cannot be read or is of another model.
        """
        import onnxruntime

        if not slots:
            raise BadInput("the model has no slots for adapters", hint="export it with: slmops adapters export")
        try:
            held = onnxruntime.AdapterFormat.read_adapter(str(file)).get_parameters()
            # Copied, for the file is mapped into memory and may be taken away.
            matrices = {name: np.array(value.numpy()) for name, value in held.items()}
        except Exception as error:  # the runtime raises classes of its own that it does not export
            raise BadInput(f"the adapter {file} cannot be read: {str(error).splitlines()[0]}") from error
        for name, matrix in matrices.items():
            _check(file, name, matrix, matrices, slots)
        if not matrices:
            raise BadInput(f"the adapter {file} is empty")
        return cls(max(len(matrix) for name, matrix in matrices.items() if name.endswith(WRITES)), matrices)


def _check(file: Path, name: str, matrix: Any, matrices: Mapping[str, Any], slots: Slots) -> None:
    slot, end = name[: -len(READS)], name[-len(READS) :]
    if slot not in slots or end not in (READS, WRITES):
        raise BadInput(
            f"the adapter {file} fills {name}, which the model has no slot for", hint="it is of another model"
        )
    reads, writes = (matrices.get(slot + one) for one in (READS, WRITES))
    inputs, outputs = slots[slot]
    if (
        reads is None
        or writes is None
        or not reads.ndim == writes.ndim == 2
        or reads.shape != (inputs, len(writes))
        or writes.shape[1] != outputs
        or not len(writes)
    ):
        raise BadInput(f"the adapter {file} does not fit {slot}, which maps {inputs} features to {outputs}")
    if matrix.dtype != np.float32 or not np.isfinite(matrix).all():
        raise BadInput(f"the adapter {file} holds something else than finite float32 numbers in {name}")


def slots_of(graph: onnx.GraphProto) -> dict[str, tuple[int, int]]:
    """The slots of a graph, in its order; none where it was exported without."""
    dims = {given.name: [dim.dim_value for dim in given.type.tensor_type.shape.dim] for given in graph.input}
    return {
        name.removesuffix(READS): (sizes[0], dims[name.removesuffix(READS) + WRITES][1])
        for name, sizes in dims.items()
        if name.endswith(READS)
    }


def slots_in(folder: Path) -> dict[str, tuple[int, int]]:
    """The slots of the model in a folder of onnxruntime-genai."""
    import onnx

    return slots_of(onnx.load(folder / "model.onnx", load_external_data=False).graph)


def without_slots(graph: onnx.GraphProto) -> None:
    """Take the slots out of a graph, in place: nodes that add nothing cost a tenth to a quarter of a token."""
    fed = {MASK, *(given.name for given in graph.input if given.name.endswith((READS, WRITES)))}
    makers = {name: node for node in graph.node for name in node.output}
    kept = []
    for node in graph.node:
        if not fed.intersection(node.input):
            kept.append(node)
        elif node.name.endswith(ADDS):
            makers[node.input[0]].output[0] = node.output[0]
        else:
            fed.update(node.output)
    inputs = [given for given in graph.input if given.name not in fed]
    tensors = [tensor for tensor in graph.initializer if tensor.name not in fed]
    for field, items in (("node", kept), ("input", inputs), ("initializer", tensors)):
        graph.ClearField(field)
        getattr(graph, field).extend(items)
