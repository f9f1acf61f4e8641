"""A running batch on onnxruntime alone: the cache is ours, so requests join and leave it at any step.

onnxruntime-genai batches statically on a processor. The graph that it runs does not mind: its attention takes a length
for each row of a batch, and reads and writes its cache in place, wherever that lies.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slmops.engines.base import Logits, Prompts
from slmops.engines.onnx_body import STATES, last_states
from slmops.engines.onnx_last import LOGITS, WANTED, with_wanted
from slmops.engines.onnx_mixing import Bindings, Wardrobe, Worn
from slmops.engines.onnx_slots import ERRORS_ALONE, OnnxAdapter, Slots, slots_in
from slmops.engines.onnxruntime import read_config
from slmops.engines.running import NO_GUESSES, Steps, beginning
from slmops.errors import BadInput

_WEIGHTS = "session.model_external_initializers_file_folder_path"
"""Where a graph that comes from memory has its weights."""


class OnnxRunning:
    """The model in a folder of onnxruntime-genai; see `slmops.engines.running.Running`.

    A cache [slots, heads, room, size] for the keys and one for the values of each layer. Their pages are taken from the
    system as they are written, so room that is not used costs nothing.
    """

    guessing, guess_tokens = 1, 6
    """Several tokens of one sequence are one run of the graph, and of several sequences as many runs."""

    def __init__(
        self, session: Any, config: dict[str, Any], slots: int, adapters: Slots, load: Callable[[], Any]
    ) -> None:
        """`adapters` are the slots for them, and `load` makes a session of the graph that has them."""
        model = config["model"]
        self._session, self.slots = session, slots
        self.room: int = model["context_length"]
        self.vocabulary: int = model["vocab_size"]
        heads, size = model["decoder"]["num_key_value_heads"], model["decoder"]["head_size"]
        names = [given.name for given in self._session.get_inputs()]
        self._caches = {
            name: np.empty((slots, heads, self.room, size), dtype=np.float32)
            for name in names
            if name.startswith("past_key_values.")
        }
        self._held: list[list[int]] = [[] for _ in range(slots)]
        # Who drives this keeps an adapter for as long as a sequence runs with it; what is left behind needs none.
        self._worn: list[weakref.ref[OnnxAdapter] | None] = [None] * slots
        self._plain = Bindings(self._session, self._caches, {})
        self._wardrobe = Wardrobe(adapters, self._caches, load)

    @classmethod
    def load(cls, folder: Path, *, slots: int, threads: int = 0) -> OnnxRunning:
        """See `load_running`."""
        config = read_config(folder)
        limit = config["search"]["max_length"]
        config["model"]["context_length"] = min(limit, config["model"]["context_length"])
        load = partial(_session, folder, threads)
        return cls(load(), config, slots, slots_in(folder), partial(load, slots=True))

    @property
    def embeds(self) -> bool:
        """Whether the graph gives hidden states: older exports do not."""
        return STATES in [given.name for given in self._session.get_outputs()]

    def states(self, sequences: Prompts) -> Logits:
        """See `slmops.engines.running.Embedding`."""
        shape = next(iter(self._caches.values())).shape
        no_logits = {WANTED: np.zeros(0, dtype=np.int64)}
        return last_states(self._session, sequences, list(self._caches), (shape[1], 0, shape[3]), no_logits)

    @property
    def adapts(self) -> bool:
        """See `slmops.engines.running.Adapting`."""
        return bool(self._wardrobe.slots)

    def load_adapter(self, path: Path) -> OnnxAdapter:
        """See `slmops.engines.running.Adapting`."""
        adapter = OnnxAdapter.load(path, self._wardrobe.slots)
        # With the first one the graph with slots is loaded, here rather than while others wait for a step.
        _ = self._wardrobe.session
        return adapter

    def begin(self, slot: int, prompt: Sequence[int], adapter: OnnxAdapter | None = None) -> int:
        """See `Running.begin`."""
        # What was run with another adapter has other keys and values.
        alike = [ids if self._wears(other, adapter) else [] for other, ids in enumerate(self._held)]
        source, known = beginning(alike, slot, prompt)
        if source != slot:
            for cache in self._caches.values():
                cache[slot, :, :known] = cache[source, :, :known]
        self._held[slot] = list(prompt[:known])
        self._worn[slot] = None if adapter is None else weakref.ref(adapter)
        return known

    def _wears(self, slot: int, adapter: OnnxAdapter | None) -> bool:
        worn = self._worn[slot]
        return adapter is None if worn is None else adapter is not None and worn() is adapter

    def rewind(self, slot: int, length: int) -> None:
        """See `Running.rewind`."""
        del self._held[slot][length:]

    def run(self, steps: Steps, guesses: Mapping[int, int] = NO_GUESSES) -> dict[int, Logits]:
        """See `Running.run`. Sequences that get one token run together, each other one by itself."""
        single = sorted(slot for slot, ids in steps.items() if len(ids) == 1)
        found = self._together(single, [steps[slot][0] for slot in single]) if single else {}
        for slot, ids in steps.items():
            if len(ids) > 1:
                tokens, end = np.array([ids], dtype=np.int64), len(self._held[slot]) + len(ids)
                wanted, worn = 1 + guesses.get(slot, 0), [self._adapter(slot)]
                found[slot] = self._forward(slot, tokens, [end], wanted, worn)[0]
        for slot, ids in steps.items():
            self._held[slot] += ids
        return found

    def _together(self, slots: Sequence[int], ids: Sequence[int]) -> dict[int, Logits]:
        """One token each, in one run over all rows from the first of these slots to the last.

        A row between them that has nothing to append gets a token behind its end, where nobody looks, by any adapter.
        """
        first, rows = slots[0], slots[-1] - slots[0] + 1
        for slot in set(range(first, first + rows)) - set(slots):
            del self._held[slot][self.room - 1 :]
        tokens = np.zeros((rows, 1), dtype=np.int64)
        tokens[[slot - first for slot in slots], 0] = ids
        lengths = [len(self._held[slot]) + 1 for slot in range(first, first + rows)]
        own = {slot: self._adapter(slot) for slot in slots}
        worn = [own.get(slot, own[first]) for slot in range(first, first + rows)]
        logits = self._forward(first, tokens, lengths, 1, worn)
        return {slot: logits[slot - first] for slot in slots}

    def _adapter(self, slot: int) -> OnnxAdapter | None:
        worn = self._worn[slot]
        adapter = None if worn is None else worn()
        if worn is not None and adapter is None:
            raise RuntimeError("the adapter of a running sequence was given up")
        return adapter

    def _forward(self, first: int, tokens: Any, lengths: Sequence[int], wanted: int, worn: Worn) -> Logits:
        """Logits [rows, `wanted`, vocabulary] behind the last of `tokens` [rows, n], which end at `lengths`."""
        from onnxruntime import OrtValue

        mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
        bindings, also = self._wardrobe.of(worn) if any(worn) else (self._plain, {})
        binding = bindings.at(first, len(tokens))
        # Bound anew, for a run would write over the logits of the one before.
        binding.bind_output(LOGITS, "cpu")
        binding.bind_cpu_input("input_ids", tokens)
        binding.bind_cpu_input("attention_mask", mask.astype(np.int64))
        binding.bind_cpu_input(WANTED, np.arange(tokens.shape[1] - wanted, tokens.shape[1]))
        for name, array in also.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
        bindings.session.run_with_iobinding(binding)
        logits: Logits = binding.get_outputs()[0].numpy()
        return logits


def _session(folder: Path, threads: int, *, slots: bool = False) -> Any:
    """Of the graph in a folder."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.add_session_config_entry(_WEIGHTS, str(folder))
    # The runtime plans its memory for every shape that it meets and keeps that; here nearly every run has its own.
    options.enable_mem_pattern = False
    # It would warn of every input that has a default, which is what slots are.
    options.log_severity_level = ERRORS_ALONE if slots else -1
    try:
        graph = with_wanted(folder / "model.onnx", slots=slots)
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises classes of its own that it does not export
        hint = error.hint if isinstance(error, BadInput) else None
        said = f"the model in {folder} cannot be loaded: {str(error).splitlines()[0]}"
        raise BadInput(said, hint=hint) from error
