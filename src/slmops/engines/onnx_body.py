"""The layers of a model that labels, as ONNX on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slmops.engines.base import EngineInfo, Logits, Prompts
from slmops.engines.onnx_file import info_of
from slmops.engines.onnxruntime import read_config
from slmops.errors import BadInput

STATES = "hidden_states"
"""The graph's output: the only one, or beside the logits."""


def last_states(session: Any, sequences: Prompts, caches: Sequence[str], shape: tuple[int, int, int]) -> Logits:
    """Last hidden states of whole sequences, float32 [sequences, longest, width], by a graph that gives them.

    Args:
        caches: the graph's inputs for what was run before; here nothing was.
        shape: heads, no tokens, and size of each.
    """
    longest = max(map(len, sequences))
    ids = np.zeros((len(sequences), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
    nothing = np.zeros((len(sequences), *shape), dtype=np.float32)
    given = {"input_ids": ids, "attention_mask": mask} | dict.fromkeys(caches, nothing)
    states: Logits = session.run([STATES], given)[0]
    return states


class OnnxBody:
    """A folder with `genai_config.json` whose graph ends before the head; see `slmops.engines.tagging.Body`."""

    def __init__(self, session: Any, folder: Path, config: dict[str, Any], threads: int) -> None:
        self._session, self._folder, self._threads = session, folder, threads
        self.vocabulary: int = config["model"]["vocab_size"]
        self._context: int = config["model"]["context_length"]
        decoder = config["model"]["decoder"]
        self._cache = (decoder["num_key_value_heads"], 0, decoder["head_size"])
        names = [given.name for given in session.get_inputs()]
        self._caches = [name for name in names if name.startswith("past_key_values.")]

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> OnnxBody:
        """See `load_engine`."""
        try:
            import onnxruntime
        except ImportError as error:
            raise BadInput(f"onnxruntime cannot be imported: {error}", hint="pip install onnxruntime") from error
        config = read_config(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads = threads or len(os.sched_getaffinity(0))
        try:
            session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises classes of its own that it does not export
            raise BadInput(f"the model in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
        return cls(session, folder, config, threads)

    def states(self, sequences: Prompts) -> Logits:
        """See `Body.states`."""
        return last_states(self._session, sequences, self._caches, self._cache)

    def info(self) -> EngineInfo:
        """See `Body.info`."""
        return info_of(self._folder, "onnxruntime", context=self._context, threads=self._threads)
