"""The shipping engine: ONNX models on the CPU through onnxruntime-genai."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slmops.engines.base import EngineInfo, Logits, Prompts, Sampling, Token, Top
from slmops.engines.choices import check_choices, common_prefix, search, tree
from slmops.engines.decoding import check, decode, score, score_top
from slmops.engines.onnx_file import info_of
from slmops.engines.onnx_slots import ERRORS_ALONE, OnnxAdapter, slots_in
from slmops.errors import BadInput
from slmops.models.tokenizer import configured_end_ids

_PAD = -1
"""Fills prompts of a batch on the right.

The runtime takes every token at the end of a prompt that equals the model's pad token for padding. Chat models
use their end token for both, so a prompt that ends with it would be read one token short. No real token is -1,
and as an index it means the last row of the embedding, whose result nothing reads.
"""

_ADAPTER = "adapter"

_NEVER = np.float32(-1e30)


class OnnxGenaiEngine:
    """A model folder with `genai_config.json`, as the model builder of onnxruntime-genai writes it."""

    def __init__(self, model: Any, folder: Path, config: dict[str, Any], threads: int, adapters: Any = None) -> None:
        """`adapters` has the one, called `_ADAPTER`, that the model runs with."""
        self._model, self._adapters, self._config = model, adapters, config
        self._folder = folder
        self._threads = threads
        self._end_ids = configured_end_ids(folder)
        self._context: int = config["model"]["context_length"]
        self._vocabulary: int = config["model"]["vocab_size"]

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> OnnxGenaiEngine:
        """See `load_engine`. Refuses configurations that would make the runtime load other code."""
        try:
            import onnxruntime_genai as og
        except ImportError as error:
            raise BadInput(
                f"the engine onnxruntime-genai cannot be imported: {error}", hint="pip install onnxruntime-genai"
            ) from error
        config = read_config(folder)
        threads = threads or len(os.sched_getaffinity(0))
        options = {"intra_op_num_threads": threads, "log_severity_level": ERRORS_ALONE}
        overlay = {"model": {"pad_token_id": _PAD, "decoder": {"session_options": options}}}
        og.disable_telemetry_events()
        try:
            settings = og.Config(str(folder))
            settings.overlay(json.dumps(overlay))
            model = og.Model(settings)
        except RuntimeError as error:
            raise BadInput(f"the model in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
        return cls(model, folder, config, threads)

    def adapted(self, path: Path) -> OnnxGenaiEngine:
        """See `Adaptable.adapted`. The weights are shared."""
        import onnxruntime_genai as og

        # The runtime takes what fits no slot for an input that nobody reads.
        OnnxAdapter.load(path, slots_in(self._folder))
        adapters = og.Adapters(self._model)
        adapters.load(str(path), _ADAPTER)
        return OnnxGenaiEngine(self._model, self._folder, self._config, self._threads, adapters)

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        """See `Engine.generate`."""
        check(prompts, vocabulary=self._vocabulary, context=self._context)
        return decode(
            lambda group, room: _Batch(self._generator, group, room),
            prompts,
            sampling,
            end_ids=self._end_ids,
            vocabulary=self._vocabulary,
            context=self._context,
            top_logits=top_logits,
        )

    def score(self, prompts: Prompts, continuations: Prompts) -> list[Logits]:
        """See `Engine.score`."""
        check(prompts, vocabulary=self._vocabulary, context=self._context, continuations=continuations)
        return score(self._forward, prompts, continuations, vocabulary=self._vocabulary)

    def score_top(self, prompts: Prompts, continuations: Prompts, *, top_logits: int) -> list[Top]:
        """See `Engine.score_top`."""
        check(prompts, vocabulary=self._vocabulary, context=self._context, continuations=continuations)
        return score_top(self._forward, prompts, continuations, vocabulary=self._vocabulary, top_logits=top_logits)

    def score_choices(self, prompts: Prompts, choices: Prompts) -> Logits:
        """See `Engine.score_choices`. One request at a time: only such a cache can be wound back."""
        nodes = tree(choices)
        check_choices(prompts, choices, vocabulary=self._vocabulary, context=self._context)
        scores = np.empty((len(prompts), len(choices)), dtype=np.float32)
        shared = common_prefix(prompts) if prompts else 0
        generator = self._generator(1, max(map(len, prompts), default=1) + max(map(len, choices)))
        for row, prompt in enumerate(prompts):
            if row:
                generator.rewind_to(shared)
            generator.append_tokens(np.array([prompt[shared if row else 0 :]], dtype=np.int32))
            scores[row] = search(nodes, len(choices), _paths(generator, len(prompt)))
        return scores

    def _forward(self, sequences: Prompts) -> Logits:
        logits: Logits = _Batch(self._generator, sequences, 0).generator.get_output("logits")
        return logits

    def _generator(self, requests: int, length: int) -> Any:
        """Room for `requests` of `length` tokens each."""
        generator = _generator(self._model, requests, length)
        if self._adapters:
            generator.set_active_adapter(self._adapters, _ADAPTER)
        return generator

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return info_of(self._folder, "onnxruntime-genai", context=self._context, threads=self._threads)


class _Batch:
    """Prompts padded on the right: the attention kernel keeps one length per request and overwrites the padding."""

    def __init__(self, generator: Callable[[int, int], Any], prompts: Prompts, room: int) -> None:
        length = max(map(len, prompts))
        self.generator = generator(len(prompts), length + room)
        padded = [list(prompt) + [_PAD] * (length - len(prompt)) for prompt in prompts]
        self.generator.append_tokens(np.array(padded, dtype=np.int32))
        self._rows = np.arange(len(prompts))
        self._choice: Logits | None = None

    def logits(self) -> Logits:
        logits: Logits = self.generator.get_logits()[:, 0]
        return logits

    def advance(self, ids: Sequence[int]) -> None:
        # A batch takes tokens only through the runtime's own choice, so the choice is made for it.
        if self._choice is None:
            self._choice = np.full((len(ids), 1, self.logits().shape[-1]), _NEVER)
        self._choice[self._rows, 0, ids] = 0
        self.generator.set_logits(self._choice)
        self._choice[self._rows, 0, ids] = _NEVER
        self.generator.generate_next_token()

    def keep(self, rows: Sequence[int]) -> bool:  # noqa: ARG002 - the runtime's cache keeps its rows
        return False


def _generator(model: Any, requests: int, length: int) -> Any:
    """Room for `requests` of `length` tokens each."""
    import onnxruntime_genai as og

    options = og.GeneratorParams(model)
    # The cache is allocated at once, so it gets the size this call needs. The rest of the search options
    # is the runtime's own way of choosing tokens, which must not touch the logits.
    options.set_search_options(
        batch_size=requests,
        max_length=length,
        min_length=0,
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
    )
    return og.Generator(model, options)


def _paths(generator: Any, length: int) -> Callable[[tuple[int, ...]], Logits]:
    """Runs paths from the end of the one request of `generator`, which has `length` tokens; see `search`."""
    first: Logits = generator.get_logits()[0, -1].copy()

    def run(path: tuple[int, ...]) -> Logits:
        if not path:
            return first
        generator.rewind_to(length)
        generator.append_tokens(np.array([path], dtype=np.int32))
        logits: Logits = generator.get_output("logits")[0, -1]
        return logits

    return run


def read_config(folder: Path) -> dict[str, Any]:
    """`genai_config.json`, once nothing in it would make the runtime load other code or files from elsewhere.

    Raises:
        BadInput: it is missing, damaged, or asks for that.
    """
    path = folder / "genai_config.json"
    if not path.is_file():
        raise BadInput(f"{folder} holds no genai_config.json", hint="give a folder written by the model builder")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        model = config["model"]
        inputs = set(model["decoder"]["inputs"])
        if not all(isinstance(model[key], int) for key in ("context_length", "vocab_size")):
            raise TypeError("context_length and vocab_size must be whole numbers")
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not a configuration of onnxruntime-genai: {error!r}") from error
    if "position_ids" in inputs:
        # Such an attention takes padding for positions, so a batch would answer differently from its requests.
        raise BadInput(f"{path}: models that take position_ids are not run", hint="export the model again for the CPU")
    _refuse_outside(config, path)
    return config


def _refuse_outside(value: Any, path: Path) -> None:
    """A configuration may name libraries to load and files anywhere; a model folder has no need of either."""
    if isinstance(value, list):
        for item in value:
            _refuse_outside(item, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("custom_ops_library", "provider_options") and item:
                raise BadInput(f"{path} asks for {key}; only plain CPU models are run")
            if key.endswith("filename") and (not isinstance(item, str) or Path(item).name != item):
                raise BadInput(f"{path} names a file outside its folder: {item!r}")
            _refuse_outside(item, path)
