"""Runs in the environment of llamacpp.lock: what llama-server does, through the C interface and without HTTP.

Every request has a slot, the one whose last text begins most like it; what both begin with stays in the slot's cache.
In a step each slot that writes gets its token, and the rest of the batch goes to prompts, the oldest first.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import llama_cpp as ll
import numpy as np
from llamacpp_side import make, silent
from measuring import Job
from serving import Ask, Came, Progress, main

BATCH = 2048
"""Tokens of a step at most: llama-server's default, as all that is not said here."""


@dataclass
class Slot:
    """Attributes:
    held: tokens in the cache.
    unread: tokens that are to be run behind them.
    request: that it is for; None while it is free.
    used: when it was last given away, counted in requests.
    """

    held: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    request: int | None = None
    used: int = -1


class LlamaServer:
    """See `serving.Server`."""

    def __init__(self, job: Job) -> None:
        ll.llama_log_set(silent, ctypes.c_void_p(0))
        ll.llama_backend_init()
        self._model = ll.llama_model_load_from_file(job["model"].encode(), ll.llama_model_default_params())
        settings = ll.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.n_batch = job["room"] * job["streams"], job["streams"], BATCH
        settings.n_threads = settings.n_threads_batch = job["threads"]
        self._context = ll.llama_init_from_model(self._model, settings)
        if not self._model or not self._context:
            raise SystemExit(f"{job['model']} cannot be loaded")
        self._memory = ll.llama_get_memory(self._context)
        self._vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self._model))
        self._slots = [Slot() for _ in range(job["streams"])]
        self._waiting: deque[tuple[int, list[int]]] = deque()
        self._progress = Progress(job["ends"])
        self._batch = ll.llama_batch_init(BATCH, 0, 1)
        # Written through arrays: a token at a time, filling a batch would take Python longer than a step may.
        self._tokens = np.ctypeslib.as_array(self._batch.token, (BATCH,))
        self._places = np.ctypeslib.as_array(self._batch.pos, (BATCH,))
        self._asked = np.ctypeslib.as_array(self._batch.logits, (BATCH,))
        np.ctypeslib.as_array(self._batch.n_seq_id, (BATCH,))[:] = 1
        self._rows = np.zeros(BATCH, dtype=np.int32)
        for i in range(BATCH):
            place = self._rows.ctypes.data + i * self._rows.itemsize
            self._batch.seq_id[i] = ctypes.cast(place, ctypes.POINTER(ctypes.c_int32))

    def ask(self, request: int, ask: Ask) -> None:
        self._progress.begin(request, ask["tokens"])
        self._waiting.append((request, list(ask["prompt"])))

    def step(self) -> list[Came]:
        self._admit()
        parts = self._parts()
        self._fill(parts)
        if ll.llama_decode(self._context, self._batch):
            raise SystemExit("llama_decode failed")
        ends = np.cumsum([count for _, count in parts]) - 1
        came = []
        for (row, count), end in zip(parts, ends.tolist(), strict=True):
            slot = self._slots[row]
            slot.held += slot.unread[:count]
            del slot.unread[:count]
            if not slot.unread:
                logits = ll.llama_get_logits_ith(self._context, end)
                token = int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())
                came.append(self._progress.take(slot.request, token))
                slot.unread, slot.request = ([], None) if came[-1].last else ([token], slot.request)
        return came

    def _admit(self) -> None:
        free = {row for row, slot in enumerate(self._slots) if slot.request is None}
        while self._waiting and free:
            request, prompt = self._waiting.popleft()
            row = max(free, key=lambda row: (shared(self._slots[row].held, prompt), -self._slots[row].used))
            slot, known = self._slots[row], shared(self._slots[row].held, prompt)
            ll.llama_memory_seq_rm(self._memory, row, known, -1)
            del slot.held[known:]
            slot.unread, slot.request, slot.used = prompt[known:], request, request
            free.remove(row)

    def _parts(self) -> list[tuple[int, int]]:
        """Slots and how many tokens of each are run: first those that write, then prompts while there is room."""
        busy = [row for row, slot in enumerate(self._slots) if slot.request is not None]
        busy.sort(key=lambda row: (len(self._slots[row].unread) > 1, self._slots[row].request))
        parts, room = [], BATCH
        for row in busy:
            count = min(len(self._slots[row].unread), room)
            if count:
                parts.append((row, count))
                room -= count
        return parts

    def _fill(self, parts: Sequence[tuple[int, int]]) -> None:
        begin = 0
        for row, count in parts:
            slot, end = self._slots[row], begin + count
            self._tokens[begin:end] = slot.unread[:count]
            self._places[begin:end] = np.arange(len(slot.held), len(slot.held) + count)
            self._asked[begin:end], self._rows[begin:end] = 0, row
            self._asked[end - 1] = count == len(slot.unread)
            begin = end
        self._batch.n_tokens = begin


def shared(held: Sequence[int], prompt: Sequence[int]) -> int:
    """Tokens that both begin with, all but one of the prompt at most."""
    most = min(len(held), len(prompt) - 1)
    return next((i for i in range(most) if held[i] != prompt[i]), most)


if __name__ == "__main__":
    main(LlamaServer, make)
