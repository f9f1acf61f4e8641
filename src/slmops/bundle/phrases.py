"""What the answers of a task commonly say: which token follows on which, read off the answers that were learned from.

A server guesses by it what comes next, and runs the guesses with the token that it has. No answer depends on it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from slmops.errors import BadInput

PHRASES = "phrases.safetensors"

ORDER = 3
"""Tokens that the next one is guessed from, at most; longer ones guessed no better (docs/adr/0027)."""

_LEAST_TIMES, _LEAST_SHARE = 3, 0.5
"""What was said fewer times may be one person's words; what follows less often than not is no guess."""


class Phrases:
    """The likeliest token behind each beginning that is common enough, and in what share of the places it stood."""

    def __init__(self, following: Mapping[tuple[int, ...], tuple[int, float]]) -> None:
        self._following = following

    def __len__(self) -> int:
        return len(self._following)

    @classmethod
    def of(cls, texts: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Phrases:
        """Read off pairs of a prompt and an answer that ends with an end token, both in the model's tokens."""
        seen: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for prompt, answer in texts:
            text = (*prompt[-ORDER:], *answer)
            for end in range(len(text) - len(answer), len(text)):
                for size in range(1, min(ORDER, end) + 1):
                    seen[text[end - size : end]][text[end]] += 1
        following = {}
        for beginning, tokens in seen.items():
            (token, times), said = tokens.most_common(1)[0], tokens.total()
            if said >= _LEAST_TIMES and times >= _LEAST_SHARE * said:
                following[beginning] = token, times / said
        return cls(following)

    def after(self, text: Sequence[int]) -> tuple[int, float] | None:
        """The token that most often follows on the longest known end of `text`, and in what share of the places."""
        for size in range(min(ORDER, len(text)), 0, -1):
            if found := self._following.get(tuple(text[-size:])):
                return found
        return None

    def save(self, path: Path) -> None:
        """Write beginnings int32 [n, ORDER], filled with -1 on the left, tokens int32 [n] and shares float32 [n]."""
        from safetensors.numpy import save_file

        rows = sorted(self._following.items())
        beginnings = np.full((len(rows), ORDER), -1, dtype=np.int32)
        for row, (beginning, _) in enumerate(rows):
            beginnings[row, ORDER - len(beginning) :] = beginning
        tokens = np.array([token for _, (token, _) in rows], dtype=np.int32)
        shares = np.array([share for _, (_, share) in rows], dtype=np.float32)
        save_file({"beginnings": beginnings, "tokens": tokens, "shares": shares}, path)

    @classmethod
    def load(cls, path: Path, *, vocabulary: int) -> Phrases:
        """Read what `save` wrote.

        Raises:
            BadInput: it is nothing of the kind, or holds tokens that the model does not have.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
            beginnings, tokens, shares = (arrays[name] for name in ("beginnings", "tokens", "shares"))
        except (SafetensorError, KeyError) as error:
            raise BadInput(f"{path} cannot be read: {error}") from None
        if beginnings.shape != (len(tokens), ORDER) or tokens.shape != shares.shape:
            raise BadInput(f"{path} holds tables of unlike sizes")
        if len(tokens) and not (tokens.min() >= 0 and tokens.max() < vocabulary):
            raise BadInput(f"{path} holds tokens that the model does not have")
        keys = (tuple(token for token in beginning if token >= 0) for beginning in beginnings.tolist())
        return cls(dict(zip(keys, zip(tokens.tolist(), shares.tolist(), strict=True), strict=True)))
