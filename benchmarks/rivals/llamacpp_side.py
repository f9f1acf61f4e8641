"""Runs in the environment of llamacpp.lock: llama.cpp's own quantisation, and its decoding through the C interface."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import llama_cpp as ll
import numpy as np
import numpy.typing as npt
from gguf_of import write_gguf
from measuring import TOGETHER, Answers, Job, Prompts, Written, log_probs_of, main

CONTEXT = 512
"""Tokens of each stream."""

Logits = npt.NDArray[np.float32]


@ll.llama_log_callback
def silent(_level: int, _text: bytes, _data: Any) -> None:
    """The library says a lot."""


class Llama:
    """A GGUF file, loaded with llama.cpp's defaults for everything but threads and room."""

    def __init__(self, job: Job) -> None:
        ll.llama_log_set(silent, ctypes.c_void_p(0))
        ll.llama_backend_init()
        self._model = ll.llama_model_load_from_file(job["model"].encode(), ll.llama_model_default_params())
        settings = ll.llama_context_default_params()
        settings.n_ctx = settings.n_batch = CONTEXT * TOGETHER
        settings.n_seq_max = TOGETHER
        settings.n_threads = settings.n_threads_batch = job["threads"]
        self._context = ll.llama_init_from_model(self._model, settings)
        if not self._model or not self._context:
            raise SystemExit(f"{job['model']} cannot be loaded")
        self._vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self._model))
        self._batch = ll.llama_batch_init(CONTEXT * TOGETHER, 0, 1)

    def log_probs(self, ids: Sequence[int]) -> Logits:
        self._forget()
        return log_probs_of(self._run([(0, place, id, True) for place, id in enumerate(ids)]), ids)

    def write(self, prompts: Prompts, limit: int, ends: Collection[int]) -> Written:
        self._forget()
        answers = Answers(len(prompts), limit, ends)
        running = list(range(len(prompts)))
        steps = [(row, i, id, i == len(ids) - 1) for row, ids in enumerate(prompts) for i, id in enumerate(ids)]
        while True:
            chosen = dict(zip(running, self._run(steps).argmax(axis=1), strict=True))
            if not answers.take([chosen.get(row, 0) for row in range(len(prompts))]):
                return answers.done()
            running = answers.running
            steps = [(row, len(prompts[row]) + len(answers.written[row]) - 1, chosen[row], True) for row in running]

    def _forget(self) -> None:
        ll.llama_memory_clear(ll.llama_get_memory(self._context), True)

    def _run(self, steps: Sequence[tuple[int, int, int, bool]]) -> Logits:
        """Run tokens, each of a stream at a place, and give the logits of those that ask for them, in order."""
        batch = self._batch
        batch.n_tokens = len(steps)
        for i, (row, place, id, asked) in enumerate(steps):
            batch.token[i], batch.pos[i], batch.logits[i] = int(id), place, asked
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, row
        if ll.llama_decode(self._context, batch):
            raise SystemExit("llama_decode failed")
        shape = (sum(asked for *_, asked in steps), self._vocabulary)
        return np.ctypeslib.as_array(ll.llama_get_logits(self._context), shape=shape)


def make(job: Job, work: Path) -> dict[str, Any]:
    """The model as fp16 in GGUF, and then in the type that the settings name."""
    ll.llama_log_set(silent, ctypes.c_void_p(0))
    out, kind = Path(job["out"]).with_suffix(".gguf"), job["settings"]["type"]
    whole = work / f"{out.stem}-f16.gguf"
    begun = time.perf_counter()
    write_gguf(Path(job["source"]) / "model", whole)
    settings = ll.llama_model_quantize_default_params()
    settings.ftype = getattr(ll, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.nthread = job["threads"]
    if ll.llama_model_quantize(str(whole).encode(), str(out).encode(), ctypes.byref(settings)):
        raise SystemExit(f"llama_model_quantize failed for {kind}")
    whole.unlink()
    return {"model": str(out), "size_bytes": out.stat().st_size, "make_s": time.perf_counter() - begun}


if __name__ == "__main__":
    main(Llama, make)
