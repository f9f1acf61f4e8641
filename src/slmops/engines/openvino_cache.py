"""A model for OpenVINO, and sequences of it: keys and values lie in blocks, shared where sequences are alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from slmops.engines.base import Logits
from slmops.engines.onnxruntime import read_config
from slmops.engines.openvino_attention import BLOCK
from slmops.engines.openvino_graph import Paged, paged
from slmops.engines.running import NO_GUESSES
from slmops.errors import BadInput

INSTALL = "pip install 'slmops[openvino]'"

CONTEXT_TOKENS = 2048
"""Prompt and answer together at most, as of the other runtimes that ship; less where the model takes less."""

_GROUP = 32
"""Numbers that share a scale where what comes into a product is rounded."""


class Model:
    """A folder of onnxruntime-genai, compiled for this processor.

    Attributes:
        context: tokens of a prompt and its answer.
        has_head: logits come out; else last hidden states of all tokens.
        vocabulary: tokens that there are.
        threads: used by one pass.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise BadInput(f"the engine openvino cannot be imported: {error}", hint=INSTALL) from error

        config = read_config(folder)
        told, self.threads = config["model"], threads
        try:
            made = paged(folder, head_size=told["decoder"]["head_size"])
            self._compiled = openvino.Core().compile_model(made.graph, "CPU", _settings(made, threads))
        except BadInput:
            raise
        except Exception as error:  # what is damaged may fail anywhere in onnx, numpy or the runtime
            said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise BadInput(f"the model in {folder} cannot be loaded: {said}") from error
        self.context: int = min(CONTEXT_TOKENS, told["context_length"], made.longest)
        self.vocabulary: int = told["vocab_size"]
        self.has_head = made.has_head
        self.caches = [
            (port.any_name, port.element_type, [int(str(size)) for size in list(port.partial_shape)[1:]])
            for port in self._compiled.inputs
            if "_cache." in port.any_name
        ]
        # One for all caches: each has memory of its own for what is computed on the way.
        self._request = self._compiled.create_infer_request()
        self._bound: Mapping[str, Any] = {}

    def run(self, given: Mapping[str, Any], tensors: Mapping[str, Any]) -> Logits:
        """Run the graph on arrays, with the keys and values in `tensors`, which it adds to."""
        import openvino

        if tensors is not self._bound:
            for name, tensor in tensors.items():
                self._request.set_tensor(name, tensor)
            self._bound = tensors
        for name, array in given.items():
            self._request.set_tensor(name, openvino.Tensor(array))
        # `infer` says nothing of an error.
        self._request.start_async()
        self._request.wait()
        logits: Logits = self._request.get_output_tensor(0).data.copy()
        return logits


def _settings(made: Paged, threads: int) -> Mapping[str, Any]:
    """Compute as the other runtimes do: in float32, but for what comes into packed weights, where the model says so."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP if made.rounds_inputs else 0,
    }


@dataclass
class _Row:
    """A sequence: how many tokens it has, and its blocks."""

    tokens: int = 0
    blocks: list[int] = field(default_factory=list)


class Cache:
    """Sequences of one model, in rows that are numbered from 0."""

    def __init__(self, model: Model, rows: int, tokens: int) -> None:
        """Room for `tokens` of each. What is not written takes no memory: the system gives pages as they are."""
        import openvino

        self._model = model
        self._rows = [_Row() for _ in range(rows)]
        count = rows * -(-tokens // BLOCK)
        self._free, self._readers = list(range(count)), [0] * count
        self._tensors = {name: openvino.Tensor(kind, [count, *shape]) for name, kind, shape in model.caches}

    def length(self, row: int) -> int:
        """Tokens that a row has."""
        return self._rows[row].tokens

    def cut(self, row: int, tokens: int = 0) -> None:
        """Keep the first tokens of a row alone."""
        held = self._rows[row]
        held.tokens, keep = tokens, -(-tokens // BLOCK)
        for block in held.blocks[keep:]:
            self._give_back(block)
        del held.blocks[keep:]

    def share(self, source: int, target: int, tokens: int) -> None:
        """Let a row begin with the first tokens of another, which are stored once, in place of what it had."""
        blocks = self._rows[source].blocks[: -(-tokens // BLOCK)]
        for block in blocks:
            self._readers[block] += 1
        self.cut(target)
        self._rows[target] = _Row(tokens, list(blocks))

    def run(
        self, steps: Mapping[int, Sequence[int]], *, every: bool = False, guesses: Mapping[int, int] = NO_GUESSES
    ) -> Logits:
        """Append tokens to rows in one pass; the logits behind the last of each, or behind every token.

        Args:
            guesses: behind so many more tokens of a row, the last ones.

        Returns:
            float32 [rows and guesses, or tokens, vocabulary], in the order of `steps`; of a model without a head the
            last hidden states of every token [tokens, width].
        """
        rows = [self._rows[row] for row in steps]
        counts = [len(ids) for ids in steps.values()]
        for row, count in zip(rows, counts, strict=True):
            self._make_room(row, count)
        begins = _begins(counts)
        past = [row.tokens for row in rows]
        ends = zip(steps, begins[1:].tolist(), strict=True)
        last = (at for row, end in ends for at in range(end - 1 - guesses.get(row, 0), end))
        given = {
            "input_ids": _whole((id for ids in steps.values() for id in ids), np.int64),
            "positions": _whole((at + i for at, n in zip(past, counts, strict=True) for i in range(n)), np.int64),
            "past_lens": np.array(past, dtype=np.int32),
            "subsequence_begins": begins,
            "block_indices": _whole((block for row in rows for block in row.blocks), np.int32),
            "block_indices_begins": _begins([len(row.blocks) for row in rows]),
            "max_context_len": np.array(max(at + n for at, n in zip(past, counts, strict=True)), dtype=np.int32),
        }
        if self._model.has_head:
            given["wanted"] = np.arange(begins[-1], dtype=np.int64) if every else _whole(last, np.int64)
        logits = self._model.run(given, self._tensors)
        for row, count in zip(rows, counts, strict=True):
            row.tokens += count
        return logits

    def _make_room(self, row: _Row, count: int) -> None:
        """Blocks for so many more tokens; one that is begun and that others read too becomes a copy first."""
        if row.tokens % BLOCK and self._readers[shared := row.blocks[-1]] > 1:
            row.blocks[-1] = copy = self._take()
            for tensor in self._tensors.values():
                tensor.data[copy] = tensor.data[shared]
            self._give_back(shared)
        while len(row.blocks) * BLOCK < row.tokens + count:
            row.blocks.append(self._take())

    def _take(self) -> int:
        block = self._free.pop()
        self._readers[block] = 1
        return block

    def _give_back(self, block: int) -> None:
        self._readers[block] -= 1
        if not self._readers[block]:
            self._free.append(block)


def _begins(counts: Sequence[int]) -> Any:
    """Where each of so many begins, and where the last ends."""
    return np.array([0, *accumulate(counts)], dtype=np.int32)


def _whole(numbers: Iterable[int], kind: Any) -> Any:
    return np.fromiter(numbers, dtype=kind)
