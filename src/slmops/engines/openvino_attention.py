"""Attention over keys and values in blocks, as OpenVINO's own continuous batching has it (Kwon et al. 2023, vLLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 32
"""Tokens of a block: what the runtime's attention takes on a processor."""

_NO_WHOLE = np.zeros(0, dtype=np.int32)
_NO_PARTS = np.zeros(0, dtype=np.float32)

Node = Any
"""Of OpenVINO's operators, which have no types."""


class Paging:
    """What all layers are told of the sequences that run, and where each has its keys and values.

    Of T tokens of S sequences:

    - `positions` int64 [T].
    - `past_lens` int32 [S]: tokens of each that are in the cache; `subsequence_begins` int32 [S + 1].
    - `block_indices` int32 [blocks]: the blocks of one sequence after another, `block_indices_begins` int32 [S + 1].
    - `max_context_len` int32 []: tokens of the longest sequence.
    - `key_cache.N` and `value_cache.N` [blocks, heads, BLOCK, head size], in the type that the runtime is told.

    Attributes:
        longest: tokens of a sequence that the rotary tables have room for.
    """

    def __init__(self, head_size: int) -> None:
        self.head_size = head_size
        self.layers = 0
        self.longest = int(np.iinfo(np.int32).max)
        self._inputs: dict[str, Node] = {}
        self._tables: dict[str, Node] = {}

    def input(self, name: str, shape: Sequence[int], kind: str) -> Node:
        """The input `name`, made when it is first asked for."""
        import openvino
        import openvino.opset15 as ops

        if name not in self._inputs:
            made = ops.parameter(openvino.PartialShape(list(shape)), getattr(openvino.Type, kind), name=name)
            made.output(0).set_names({name})
            self._inputs[name] = made
        return self._inputs[name]

    def inputs(self) -> list[Node]:
        return list(self._inputs.values())

    def turn(self, name: str, table: npt.NDArray[np.float32]) -> Node:
        """A rotary table's row for each token, [T, 1, 1, width]; `table` [positions, width] has half of a row."""
        import openvino.opset15 as ops

        self.longest = min(self.longest, len(table))
        if name not in self._tables:
            positions = self.input("positions", [-1], "i64")
            rows = ops.gather(ops.constant(np.concatenate([table, table], axis=1)), positions, np.int64(0))
            self._tables[name] = ops.unsqueeze(rows, np.array([1, 2]))
        return self._tables[name]


def attention(
    paging: Paging,
    parts: Sequence[Node],
    tables: Sequence[tuple[str, npt.NDArray[np.float32]]],
    given: Mapping[str, Any],
) -> Node:
    """What comes out of a layer's attention, [T, 1, heads · head size].

    Args:
        parts: queries, keys and values [T, 1, heads · head size], or the three side by side.
        tables: names and values of cosines and sines.
        given: attributes of `GroupQueryAttention`, the operator of onnxruntime.
    """
    import openvino.op as op
    import openvino.opset15 as ops

    heads, kv_heads, size = given["num_heads"], given["kv_num_heads"], paging.head_size
    if len(parts) == 1:
        widths = np.array([count * size for count in (heads, kv_heads, kv_heads)])
        parts = ops.variadic_split(parts[0], np.int64(-1), widths).outputs()
    cos, sin = (paging.turn(name, table) for name, table in tables)
    turned = tables[0][1].shape[1] * 2
    query, key = (
        _flat(_turned(part, count, size, turned, cos, sin), count * size)
        for part, count in zip(parts, (heads, kv_heads), strict=False)
    )
    layer, paging.layers = paging.layers, paging.layers + 1
    caches = [paging.input(f"{what}_cache.{layer}", [-1, kv_heads, BLOCK, size], "f32") for what in ("key", "value")]
    window = max(0, given.get("local_window_size", -1))
    told = _told(paging, given.get("scale") or size**-0.5, window)
    inputs = [query, key, _flat(parts[2], kv_heads * size), *caches, *told]
    node = op._PagedAttentionExtension([each.output(0) for each in inputs])
    info = node.get_rt_info()
    for which in ("k", "v"):
        info[f"num_{which}_heads"], info[f"{which}_head_size"] = kv_heads, size
    return ops.unsqueeze(node.output(0), np.int64(1))


def _told(paging: Paging, scale: float, window: int) -> list[Node]:
    """The other inputs of the operator; of what it can do besides, nothing is asked for."""
    import openvino.opset15 as ops

    whole, parts, zero = ops.constant(_NO_WHOLE), ops.constant(_NO_PARTS), ops.constant(np.int32(0))
    return [
        paging.input("past_lens", [-1], "i32"),
        paging.input("subsequence_begins", [-1], "i32"),
        paging.input("block_indices", [-1], "i32"),
        paging.input("block_indices_begins", [-1], "i32"),
        ops.constant(np.float32(scale)),
        ops.constant(np.int32(window)),
        parts,  # slopes of ALiBi
        paging.input("max_context_len", [], "i32"),
        whole,  # windows of summed scores
        *(whole, whole, parts),  # blocks that are turned anew
        *(parts, zero, zero),  # blocks that are left out
        parts,  # sinks
        *(zero, whole, whole, whole),  # blocks that are given up
        whole,  # kinds of tokens
        *(ops.constant(np.zeros(0, dtype=np.uint8)), whole),  # biases between queries
    ]


def _flat(values: Node, width: int) -> Node:
    import openvino.opset15 as ops

    return ops.reshape(values, np.array([-1, width]), False)


def _turned(values: Node, heads: int, size: int, turned: int, cos: Node, sin: Node) -> Node:
    """Rotary positions (Su et al. 2021) of the first `turned` features of each head, [T, heads, 1, size]."""
    import openvino.opset15 as ops

    apart = ops.reshape(values, np.array([0, heads, 1, size]), True)
    last = np.int64(-1)
    first, rest = apart, None
    if turned < size:
        first, rest = ops.variadic_split(apart, last, np.array([turned, size - turned])).outputs()
    left, right = ops.variadic_split(first, last, np.array([turned // 2, turned // 2])).outputs()
    crossed = ops.concat([ops.multiply(right, np.float32(-1)), left], -1)
    first = ops.add(ops.multiply(first, cos), ops.multiply(crossed, sin))
    return first if rest is None else ops.concat([first, rest], -1)
