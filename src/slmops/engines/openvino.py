"""ONNX models on the CPU through OpenVINO, which batches continuously."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from slmops.engines.base import EngineInfo, Logits, Prompts, Sampling, Token, Top
from slmops.engines.choices import check_choices, common_prefix, search, tree
from slmops.engines.decoding import check, decode, in_rows, score, score_top
from slmops.engines.onnx_file import info_of
from slmops.engines.openvino_cache import Cache, Model
from slmops.models.tokenizer import configured_end_ids

NAME = "openvino"

MARK = "openvino.json"
"""In a folder of onnxruntime-genai: it was made small for this runtime, which gets the same file."""


class OpenVinoEngine:
    """A folder of onnxruntime-genai, whose configuration is read for the sizes of the model alone."""

    def __init__(self, model: Model, folder: Path) -> None:
        self._model, self._folder = model, folder
        self._end_ids = configured_end_ids(folder)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> OpenVinoEngine:
        """See `load_engine`."""
        return cls(Model(folder, threads or len(os.sched_getaffinity(0))), folder)

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        """See `Engine.generate`."""
        model = self._model
        check(prompts, vocabulary=model.vocabulary, context=model.context)
        return decode(
            lambda group, room: _Batch(model, group, room),
            prompts,
            sampling,
            end_ids=self._end_ids,
            vocabulary=model.vocabulary,
            context=model.context,
            top_logits=top_logits,
        )

    def score(self, prompts: Prompts, continuations: Prompts) -> list[Logits]:
        """See `Engine.score`."""
        model = self._model
        check(prompts, vocabulary=model.vocabulary, context=model.context, continuations=continuations)
        return score(self._forward, prompts, continuations, vocabulary=model.vocabulary)

    def score_top(self, prompts: Prompts, continuations: Prompts, *, top_logits: int) -> list[Top]:
        """See `Engine.score_top`."""
        model = self._model
        check(prompts, vocabulary=model.vocabulary, context=model.context, continuations=continuations)
        return score_top(self._forward, prompts, continuations, vocabulary=model.vocabulary, top_logits=top_logits)

    def score_choices(self, prompts: Prompts, choices: Prompts) -> Logits:
        """See `Engine.score_choices`. One request at a time; what all prompts begin with is run once."""
        nodes, model = tree(choices), self._model
        check_choices(prompts, choices, vocabulary=model.vocabulary, context=model.context)
        scores = np.empty((len(prompts), len(choices)), dtype=np.float32)
        shared = common_prefix(prompts) if prompts else 0
        cache = Cache(model, 1, max(map(len, prompts), default=1) + max(map(len, choices)))
        for row, prompt in enumerate(prompts):
            cache.cut(0, shared if row else 0)
            first = cache.run({0: prompt[cache.length(0) :]})
            scores[row] = search(nodes, len(choices), _paths(cache, first, len(prompt)))
        return scores

    def _forward(self, sequences: Prompts) -> Logits:
        longest = max(map(len, sequences))
        cache = Cache(self._model, len(sequences), longest)
        written = cache.run(dict(enumerate(sequences)), every=True)
        return in_rows(written, sequences)

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return info_of(self._folder, NAME, context=self._model.context, threads=self._model.threads)


def _paths(cache: Cache, first: Logits, length: int) -> Callable[[tuple[int, ...]], Logits]:
    """Runs paths from the end of row 0, which has `length` tokens; see `search`."""

    def run(path: tuple[int, ...]) -> Logits:
        if not path:
            logits = first
        else:
            cache.cut(0, length)
            logits = cache.run({0: path})
        last: Logits = logits[0]
        return last

    return run


class _Batch:
    """Requests of any lengths, in a cache of their own; nothing is padded."""

    def __init__(self, model: Model, prompts: Prompts, room: int) -> None:
        self._cache = Cache(model, len(prompts), max(map(len, prompts)) + room)
        self._rows = list(range(len(prompts)))
        self._logits = self._cache.run(dict(enumerate(prompts)))

    def logits(self) -> Logits:
        return self._logits

    def advance(self, ids: Sequence[int]) -> None:
        self._logits = self._cache.run({row: [id] for row, id in zip(self._rows, ids, strict=True)})

    def keep(self, rows: Sequence[int]) -> bool:
        kept = [self._rows[row] for row in rows]
        for row in set(self._rows) - set(kept):
            self._cache.cut(row)
        self._rows = kept
        return True
