"""Adapters of several rows of a batch in one run: side by side along the rank, of which each row sees its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from slmops.engines.onnx_last import LOGITS
from slmops.engines.onnx_slots import MASK, READS, WRITES, Array, OnnxAdapter, Slots

Worn = Sequence[OnnxAdapter | None]
"""The adapter of each row; None runs the base."""


class Bindings:
    """What a session reads and writes at each run over the same rows. To bind it takes a tenth of a small model's step.

    Rows of the caches are bound as past and as present, and `also` with its values.
    """

    def __init__(self, session: Any, caches: Mapping[str, Array], also: Mapping[str, Array]) -> None:
        from onnxruntime import OrtValue

        self.session, self._caches = session, caches
        self._also = {name: OrtValue.ortvalue_from_numpy(matrix) for name, matrix in also.items()}
        self._bound: dict[tuple[int, int], Any] = {}

    def at(self, first: int, rows: int) -> Any:
        """Of `rows` rows of the caches from `first` on."""
        if (first, rows) not in self._bound:
            binding = self._bound[first, rows] = self.session.io_binding()
            # What is bound first comes out first.
            binding.bind_output(LOGITS, "cpu")
            for name, cache in self._caches.items():
                part = cache[first : first + rows]
                place = ("cpu", 0, np.float32, part.shape, part.ctypes.data)
                binding.bind_input(name, *place)
                binding.bind_output(name.replace("past_key_values", "present"), *place)
            for name, value in self._also.items():
                binding.bind_ortvalue_input(name, value)
        return self._bound[first, rows]


class SideBySide:
    """Adapters in one set of matrices."""

    def __init__(
        self, adapters: Sequence[OnnxAdapter], slots: Slots, session: Any, caches: Mapping[str, Array]
    ) -> None:
        # An adapter that nobody uses any more is given up, and what was made of it with the next that is made.
        self._adapters = [weakref.ref(adapter) for adapter in adapters]
        self._ends = np.cumsum([adapter.ranks for adapter in adapters]).tolist()
        self.bindings = Bindings(session, caches, dict(_matrices(adapters, slots)))

    def covers(self, wanted: set[OnnxAdapter]) -> bool:
        """Whether all of these are among them."""
        return wanted <= {adapter() for adapter in self._adapters}

    def mask(self, worn: Worn) -> Array:
        """Which ranks each row sees, float32 [rows, 1, ranks]."""
        mask = np.zeros((len(worn), 1, self._ends[-1]), dtype=np.float32)
        begins = [0, *self._ends]
        spans = {adapter(): slice(*ends) for adapter, *ends in zip(self._adapters, begins, self._ends, strict=False)}
        for row, adapter in enumerate(worn):
            if adapter:
                mask[row, 0, spans[adapter]] = 1
        return mask


class Wardrobe:
    """What rows run with, by the adapters that they wear.

    Attributes:
        slots: of the graph.
    """

    def __init__(self, slots: Slots, caches: Mapping[str, Array], load: Callable[[], Any]) -> None:
        """`load` makes the session of the graph with slots, which is wanted once there is an adapter."""
        self.slots, self._caches, self._load = slots, caches, load
        self._alone: weakref.WeakKeyDictionary[OnnxAdapter, Bindings] = weakref.WeakKeyDictionary()
        self._mixed: SideBySide | None = None

    @cached_property
    def session(self) -> Any:
        """Of the graph with slots."""
        return self._load()

    def of(self, worn: Worn) -> tuple[Bindings, dict[str, Array]]:
        """The bindings for a run over rows that wear these, and what it is to be given besides."""
        wanted = {adapter for adapter in worn if adapter}
        if len(wanted) == 1 and None not in worn:
            (adapter,) = wanted
            if adapter not in self._alone:
                self._alone[adapter] = Bindings(self.session, self._caches, adapter.matrices)
            return self._alone[adapter], {}
        # One that covers more is kept, though the ranks beyond cost some time: to make another copies megabytes.
        if self._mixed is None or not self._mixed.covers(wanted):
            self._mixed = None
            self._mixed = SideBySide(list(wanted), self.slots, self.session, self._caches)
        return self._mixed.bindings, {MASK: self._mixed.mask(worn)}


def _matrices(adapters: Sequence[OnnxAdapter], slots: Slots) -> Iterator[tuple[str, Array]]:
    """Every slot has as many ranks, so that one mask serves all: what an adapter lacks is filled with zeros."""
    for slot, (inputs, outputs) in slots.items():
        reads = [_widened(adapter.matrices.get(slot + READS), inputs, adapter.ranks, axis=1) for adapter in adapters]
        writes = [_widened(adapter.matrices.get(slot + WRITES), outputs, adapter.ranks, axis=0) for adapter in adapters]
        yield slot + READS, np.concatenate(reads, axis=1)
        yield slot + WRITES, np.concatenate(writes, axis=0)


def _widened(matrix: Array | None, features: int, ranks: int, *, axis: int) -> Array:
    if matrix is None:
        return np.zeros((features, ranks) if axis else (ranks, features), dtype=np.float32)
    missing = [(0, 0), (0, 0)]
    missing[axis] = (0, ranks - matrix.shape[axis])
    return np.pad(matrix, missing)
