"""Answers of a given form: at each token, everything that could not lead to it is ruled out.

llguidance follows a grammar over bytes and says which tokens may come next. It bounds what a grammar may cost, since a
schema can come from anybody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from slmops.engines.base import Logits
from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer
from slmops.serve.tools import ToolForm

MOST_SCHEMA_BYTES = 64_000

_LIMITS = LLParserLimits(max_grammar_size=20_000, initial_lexer_fuel=500_000, max_lexer_states=20_000)
_SLICES = LLTokenizer.json_slices()
_KEPT = 64

_COMPACT = {"whitespace_flexible": False}
_AS_TEMPLATES_WRITE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammars:
    """The forms that answers of one model may be held to. Not safe for use by several threads at once."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        """`vocabulary` tokens have a logit."""
        text = tokenizer.backend.to_str()
        self._vocabulary = vocabulary
        self._tokens = LLTokenizer(text, vocabulary, sorted(tokenizer.end_ids), _SLICES)
        self._compiled = lru_cache(_KEPT)(self._compile)

    def json(self, schema: dict[str, Any] | None) -> Form:
        """A JSON text that `schema` allows; any object without one.

        Raises:
            BadInput: the schema is too large, or not one that can be followed.
        """
        return self._form({"type": "object"} if schema is None else schema, _COMPACT, "", "")

    def call(self, form: ToolForm, tools: Sequence[Mapping[str, Any]]) -> Form:
        """A call of one of `tools`, as the model writes one.

        Raises:
            BadInput: as `json`, of the arguments of a tool.
        """
        return self._form(form.schema(tools), _AS_TEMPLATES_WRITE, form.opening, form.closing)

    def _form(self, schema: dict[str, Any], spacing: dict[str, Any], opening: str, closing: str) -> Form:
        told = json.dumps({**schema, "x-guidance": spacing})
        if len(told) > MOST_SCHEMA_BYTES:
            raise BadInput(f"the schema has {len(told)} bytes; at most {MOST_SCHEMA_BYTES} are accepted")
        return Form(self._compiled(told, opening, closing), self._vocabulary)

    def _compile(self, schema: str, opening: str, closing: str) -> LLMatcher:
        around = [json.dumps(text, ensure_ascii=False) if text else "" for text in (opening, closing)]
        grammar = LLMatcher.grammar_from_lark(f"start: {around[0]} told {around[1]}\ntold: %json {schema}\n")
        matcher = LLMatcher(self._tokens, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise BadInput(f"the schema cannot be followed: {matcher.get_error()[:200]}")
        return matcher


class Form:
    """The state of one answer; see `slmops.serve.generation.Constraint`."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher.deep_copy()
        self._mask = np.zeros((vocabulary + 31) // 32, dtype=np.int32)

    def allow(self, logits: Logits) -> Logits:
        """See `Constraint.allow`.

        Raises:
            RuntimeError: the form has become too dear to follow.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if self._matcher.is_error():
            raise RuntimeError("the form of an answer has become too dear to follow")
        allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: len(logits)]
        return np.where(allowed.astype(bool), logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        """See `Constraint.accept`."""
        self._matcher.consume_token(token)
