"""GGUF models on the CPU through llama.cpp."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slmops.engines.base import EngineInfo, Logits, Prompts, Sampling, Token, Top
from slmops.engines.choices import check_choices, common_prefix, search, tree
from slmops.engines.decoding import check, decode, in_rows, score, score_top
from slmops.errors import BadInput
from slmops.models.tokenizer import configured_end_ids

FILE = "model.gguf"

NAME, PACKAGE = "llama.cpp", "llama-cpp-python"

CONTEXT_TOKENS = 2048
"""Prompt and answer together at most, as of the other runtimes that ship; less where the model takes less."""

_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "Q4_0": "int4", "Q4_1": "int4", "Q8_0": "int8"}
"""What GGUF calls the types that are written here."""

_STEP = 512
"""Tokens of the cache: it is made in multiples of this, so that few calls need a larger one."""


class LlamaCppEngine:
    """A folder with a GGUF file and the tokenizer beside it, as `slmops.compress.gguf_file` writes it."""

    def __init__(self, model: Model, folder: Path) -> None:
        self._model, self._folder = model, folder
        self._end_ids = configured_end_ids(folder)
        self._context = min(CONTEXT_TOKENS, model.trained_tokens)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> LlamaCppEngine:
        """See `load_engine`."""
        return cls(Model(folder / FILE, threads or len(os.sched_getaffinity(0))), folder)

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        """See `Engine.generate`."""
        check(prompts, vocabulary=self._model.vocabulary, context=self._context)
        return decode(
            lambda group, room: _Batch(self._model, group, room),
            prompts,
            sampling,
            end_ids=self._end_ids,
            vocabulary=self._model.vocabulary,
            context=self._context,
            top_logits=top_logits,
        )

    def score(self, prompts: Prompts, continuations: Prompts) -> list[Logits]:
        """See `Engine.score`."""
        check(prompts, vocabulary=self._model.vocabulary, context=self._context, continuations=continuations)
        return score(self._forward, prompts, continuations, vocabulary=self._model.vocabulary)

    def score_top(self, prompts: Prompts, continuations: Prompts, *, top_logits: int) -> list[Top]:
        """See `Engine.score_top`."""
        vocabulary = self._model.vocabulary
        check(prompts, vocabulary=vocabulary, context=self._context, continuations=continuations)
        return score_top(self._forward, prompts, continuations, vocabulary=vocabulary, top_logits=top_logits)

    def score_choices(self, prompts: Prompts, choices: Prompts) -> Logits:
        """See `Engine.score_choices`. One request at a time; what all prompts begin with is run once."""
        nodes = tree(choices)
        check_choices(prompts, choices, vocabulary=self._model.vocabulary, context=self._context)
        scores = np.empty((len(prompts), len(choices)), dtype=np.float32)
        shared = common_prefix(prompts) if prompts else 0
        self._model.make_room(1, max(map(len, prompts), default=1) + max(map(len, choices)))
        for row, prompt in enumerate(prompts):
            known = shared if row else 0
            self._model.forget(0, known)
            first = self._model.run(_places(0, known, prompt[known:]))
            scores[row] = search(nodes, len(choices), _paths(self._model, first, len(prompt)))
        return scores

    def _forward(self, sequences: Prompts) -> Logits:
        longest = max(map(len, sequences))
        self._model.make_room(len(sequences), len(sequences) * longest)
        places = (place for row, ids in enumerate(sequences) for place in _places(row, 0, ids, every=True))
        written = self._model.run(places)
        return in_rows(written, sequences)

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        stored, parameters = _weights(self._folder / FILE)
        return EngineInfo(
            engine=NAME,
            version=version(PACKAGE),
            precision=stored,
            weights_bytes=(self._folder / FILE).stat().st_size,
            parameters=parameters,
            context_tokens=self._context,
            threads=self._model.threads,
        )


class Place(NamedTuple):
    """A token of a request at a position, and whether its logits are wanted."""

    row: int
    position: int
    id: int
    asked: bool


def _places(row: int, begin: int, ids: Sequence[int], *, every: bool = False) -> list[Place]:
    """Tokens one behind the other; the logits of the last are wanted, or of all."""
    return [Place(row, begin + i, id, every or i == len(ids) - 1) for i, id in enumerate(ids)]


def _paths(model: Model, first: Logits, length: int) -> Callable[[tuple[int, ...]], Logits]:
    """Runs paths from the end of request 0, which has `length` tokens; see `search`."""

    def run(path: tuple[int, ...]) -> Logits:
        if not path:
            logits = first
        else:
            model.forget(0, length)
            logits = model.run(_places(0, length, path))
        last: Logits = logits[0]
        return last

    return run


class _Batch:
    """Requests of any lengths: each has a sequence of the cache, and nothing is padded.

    The model has one cache. Where somebody else has had it in between, what was read is read again.
    """

    def __init__(self, model: Model, prompts: Prompts, room: int) -> None:
        self._model, self._rows = model, list(range(len(prompts)))
        self._texts, self._room = [list(prompt) for prompt in prompts], sum(map(len, prompts)) + room * len(prompts)
        self._read()

    def _read(self) -> None:
        self._turn = self._model.make_room(len(self._texts), self._room)
        self._logits = self._model.run(place for row in self._rows for place in _places(row, 0, self._texts[row]))

    def logits(self) -> Logits:
        return self._logits

    def advance(self, ids: Sequence[int]) -> None:
        for row, id in zip(self._rows, ids, strict=True):
            self._texts[row].append(id)
        if self._turn != self._model.turn:
            self._read()
            return
        last = ((row, self._texts[row]) for row in self._rows)
        self._logits = self._model.run(Place(row, len(text) - 1, text[-1], True) for row, text in last)

    def keep(self, rows: Sequence[int]) -> bool:
        kept = [self._rows[row] for row in rows]
        if self._turn == self._model.turn:
            for row in set(self._rows) - set(kept):
                self._model.forget(row)
        self._rows = kept
        return True


class Model:
    """A loaded file with a cache that grows to what is asked of it."""

    def __init__(self, path: Path, threads: int) -> None:
        library = runtime()
        if not path.is_file():
            raise BadInput(f"{path.parent} holds no {path.name}", hint="give a folder that slmops compress wrote")
        self._ll, self.threads = library, threads
        self._model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        if not self._model:
            raise BadInput(f"the model in {path.parent} cannot be loaded: llama.cpp refuses {path.name}")
        self._context: Any = None
        self._rows = self._tokens = 0
        self.turn = 0
        self._exact = _weights(path)[0] == "float32"
        self.vocabulary: int = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model))
        self.trained_tokens: int = library.llama_model_n_ctx_train(self._model)

    def make_room(self, rows: int, tokens: int) -> int:
        """An empty cache for so many requests, with so many tokens in all, and the number of this turn to use it."""
        ll = self._ll
        self.turn += 1
        if rows <= self._rows and tokens <= self._tokens:
            ll.llama_memory_clear(ll.llama_get_memory(self._context), False)
            return self.turn
        self._free_context()
        self._rows = max(rows, self._rows)
        self._tokens = max(-(-tokens // _STEP) * _STEP, self._tokens)
        told = ll.llama_context_default_params()
        told.n_ctx, told.n_seq_max, told.kv_unified = self._tokens, self._rows, True
        told.n_batch = self._tokens
        told.n_threads = told.n_threads_batch = self.threads
        if self._exact:
            # Its defaults compute in sixteen bits, which is for weights that were rounded more.
            told.type_k = told.type_v = ll.GGML_TYPE_F32
            told.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = ll.llama_init_from_model(self._model, told)
        if not self._context:
            self._rows = self._tokens = 0
            raise BadInput(
                f"llama.cpp has no room for {rows} requests with {tokens:,} tokens together",
                hint="there is too little free memory",
            )
        return self.turn

    def run(self, places: Iterable[Place]) -> Logits:
        """Run tokens behind what their requests have, and give the logits that are wanted, [wanted, vocabulary]."""
        ll, told = self._ll, list(places)
        batch = ll.llama_batch_init(len(told), 0, 1)
        try:
            batch.n_tokens = len(told)
            for i, (row, position, id, asked) in enumerate(told):
                batch.token[i], batch.pos[i], batch.logits[i] = int(id), position, asked
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, row
            if status := ll.llama_decode(self._context, batch):
                raise RuntimeError(f"llama_decode ended with {status} for {len(told)} tokens")
        finally:
            ll.llama_batch_free(batch)
        shape = (sum(place.asked for place in told), self.vocabulary)
        logits: Logits = np.ctypeslib.as_array(ll.llama_get_logits(self._context), shape=shape).copy()
        return logits

    def forget(self, row: int, begin: int = 0) -> None:
        """Everything of a request from a position on."""
        self._ll.llama_memory_seq_rm(self._ll.llama_get_memory(self._context), row, begin, -1)

    def share(self, source: int, target: int, tokens: int) -> None:
        """Let an empty request begin with the first tokens of another, which are stored once."""
        if tokens:
            self._ll.llama_memory_seq_cp(self._ll.llama_get_memory(self._context), source, target, 0, tokens)

    def _free_context(self) -> None:
        if self._context:
            self._ll.llama_free(self._context)
            self._context = None

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self._free_context()
            self._ll.llama_model_free(self._model)


@cache
def runtime() -> Any:
    """llama.cpp, told to be silent.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import llama_cpp
    except ImportError as error:
        raise BadInput(
            f"the engine llama.cpp cannot be imported: {error}",
            hint="pip install 'slmops[llamacpp]' (it is compiled, for minutes)",
        ) from error
    llama_cpp.llama_log_set(_silent(llama_cpp), ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


@cache
def _silent(library: Any) -> Any:
    """Kept for as long as the library calls it."""
    return library.llama_log_callback(lambda _level, _text, _data: None)


@cache
def _weights(path: Path) -> tuple[str, int]:
    """What the weights of a file are stored in, e.g. `int4+int8`, and how many there are."""
    from gguf import GGUFReader

    try:
        tensors = [tensor for tensor in GGUFReader(path).tensors if not tensor.name.startswith("rope_")]
    except (ValueError, IndexError) as error:
        raise BadInput(f"the model in {path.parent} cannot be loaded: {error}") from error
    kinds: Mapping[str, None] = dict.fromkeys(
        _TYPES.get(tensor.tensor_type.name, tensor.tensor_type.name.lower())
        for tensor in tensors
        if len(tensor.shape) > 1
    )
    order = ["int4", "int8", "float16", "bfloat16", "float32"]
    stored = sorted(kinds, key=lambda kind: order.index(kind) if kind in order else len(order))
    return "+".join(stored), sum(int(tensor.n_elements) for tensor in tensors)
