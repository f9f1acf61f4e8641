"""Answers in OpenAI's form: whole, and as pieces of a stream."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slmops.bundle.labels import shares
from slmops.engines.base import Logits
from slmops.models.tokenizer import Tokenizer
from slmops.serve.calling import Call, Calling
from slmops.serve.generation import Piece
from slmops.serve.scheduler import Ticket

Json = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """How one request is answered: as a chat or as a bare completion.

    Attributes:
        model: as the request called it.
        chat: whether messages were asked for.
        tops: see `Generation`.
        calling: makes what finds the calls of tools in one answer; None where there are no tools.
    """

    model: str
    chat: bool
    tokenizer: Tokenizer
    tops: int | None
    calling: Callable[[], Calling] | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    _callings: dict[int, Calling] = field(default_factory=dict, init=False)

    def _frame(self, choices: Sequence[Json], *, chunk: bool) -> Json:
        prefix, kind = ("chatcmpl", "chat.completion") if self.chat else ("cmpl", "text_completion")
        kind += ".chunk" if chunk and self.chat else ""
        named = {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}
        return {**named, "choices": list(choices)}

    def whole(self, answers: Sequence[Sequence[Piece]], usage: Json) -> Json:
        """The answer to a request that did not ask for a stream."""
        return {**self._frame([self._choice(i, one) for i, one in enumerate(answers)], chunk=False), "usage": usage}

    def _choice(self, index: int, pieces: Sequence[Piece]) -> Json:
        text, reason = "".join(piece.text for piece in pieces), str(pieces[-1].ended)
        shown: Json = (
            {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        )
        if calling := self.calling and self.calling():
            said = calling.feed(text)[0] + calling.end()[0]
            if calling.calls:
                reason = "tool_calls"
                shown["message"] |= {"content": said or None, "tool_calls": [_told(call) for call in calling.calls]}
        return {"index": index, **shown, "logprobs": self._log_probs(pieces), "finish_reason": reason}

    def first(self, index: int) -> Json | None:
        """What a stream of messages begins with."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._frame([choice], chunk=True) if self.chat else None

    def pieces(self, index: int, piece: Piece) -> list[Json]:
        """One piece of a stream as events; none where there is nothing to tell yet."""
        said, calls = piece.text, list[Json]()
        reason: str | None = piece.ended
        if self.calling:
            said, calls, called = self._called(index, piece)
            reason = "tool_calls" if called and piece.ended else piece.ended
        log_probs = self._log_probs([piece]) if piece.token is not None else None
        told: list[Json] = [
            {"delta": {"tool_calls": [call]}, "logprobs": None, "finish_reason": None} for call in calls
        ]
        if said or reason or log_probs:
            shown: Json = {"delta": {"content": said} if said else {}} if self.chat else {"text": said}
            last = {**shown, "logprobs": log_probs, "finish_reason": reason}
            # What is said stands before the calls, and the reason behind them.
            told = [*told, last] if reason else [last, *told]
        return [self._frame([{"index": index, **one}], chunk=True) for one in told]

    def _called(self, index: int, piece: Piece) -> tuple[str, list[Json], bool]:
        """What a piece says, the calls that became whole, and whether there were any so far."""
        assert self.calling  # noqa: S101
        calling = self._callings.setdefault(index, self.calling())
        before = len(calling.calls)
        said = calling.feed(piece.text)[0] + (calling.end()[0] if piece.ended else "")
        calls = [{"index": n, **_told(call)} for n, call in enumerate(calling.calls) if n >= before]
        return said, calls, bool(calling.calls)

    def usage_chunk(self, usage: Json) -> Json:
        """What a stream ends with where it is asked for."""
        return {**self._frame([], chunk=True), "usage": usage}

    def _log_probs(self, pieces: Sequence[Piece]) -> Json | None:
        if self.tops is None:
            return None
        told = [piece for piece in pieces if piece.token is not None]
        return {"content": [self._token(piece) for piece in told], "refusal": None} if self.chat else self._plain(told)

    def _token(self, piece: Piece) -> Json:
        assert piece.token is not None  # noqa: S101
        pairs = list(zip(*piece.top, strict=True)) if piece.top else []
        tops = [self._named(int(id), float(log_prob)) for id, log_prob in pairs]
        return {**self._named(piece.token, piece.log_prob or 0.0), "top_logprobs": tops}

    def _named(self, id: int, log_prob: float) -> Json:
        text = self._text(id)
        # Half of a character has no text of its own.
        return {"token": text, "logprob": log_prob, "bytes": None if "\ufffd" in text else list(text.encode())}

    def _plain(self, pieces: Sequence[Piece]) -> Json:
        """The older form of bare completions."""
        tops = [
            {self._text(int(id)): float(log_prob) for id, log_prob in zip(*piece.top, strict=True)} if piece.top else {}
            for piece in pieces
        ]
        tokens = [self._text(piece.token) for piece in pieces if piece.token is not None]
        ends = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
        return {
            "tokens": tokens,
            "token_logprobs": [piece.log_prob for piece in pieces],
            "top_logprobs": tops,
            "text_offset": ends,
        }

    def _text(self, id: int) -> str:
        text = self.tokenizer.backend.decode([id], skip_special_tokens=False)
        return str(text)


def _told(call: Call) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def labelled(
    index: int, labels: Sequence[str], likelihoods: Logits, abstain_below: float | None, temperature: float
) -> Json:
    """The probability of each label: its likelihood among those of all; no label where the best is below a bound.

    Args:
        likelihoods: their logarithms, [labels].
        temperature: of the bundle's calibration.
    """
    (found,) = shares(likelihoods[None], temperature)
    order = np.argsort(-found, kind="stable")
    best = float(found[order[0]])
    label = None if abstain_below is not None and best < abstain_below else labels[order[0]]
    told = {labels[i]: float(found[i]) for i in order}
    return {"index": index, "label": label, "probability": best, "probabilities": told}


def usage(prompt: int, known: int, written: int) -> Json:
    """Tokens of a request with all its answers.

    Args:
        known: of the prompt, that were in the cache already.
    """
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": known},
    }


def usage_of(tickets: Sequence[Ticket]) -> Json:
    """The same of everything that a request had written; a prompt with several answers counts once."""
    prompts = {id(ticket.job.prompt): ticket for ticket in reversed(tickets)}.values()
    read, known = sum(len(ticket.job.prompt) for ticket in prompts), sum(ticket.known for ticket in prompts)
    return usage(read, known, sum(ticket.job.written for ticket in tickets))


def event(content: Mapping[str, Any]) -> bytes:
    """One event of a stream (HTML Living Standard, section 9.2.6)."""
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
"""The last event."""


def problem(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> Json:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
