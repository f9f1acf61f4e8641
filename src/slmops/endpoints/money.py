"""What requests cost, in whole picodollars: sums of them are exact, so a cap holds to the last digit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from slmops.endpoints.client import Reply
from slmops.recipe.evaluate import Price

PICO = 10**12
"""Picodollars in a dollar."""

OVERHEAD_TOKENS = 512
"""What a chat template may add to the messages: role marks, a default system text, a date."""


@dataclass(frozen=True)
class Cost:
    """Of one request, or of many."""

    pico: int = 0
    tokens: int = 0
    requests: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.pico + other.pico, self.tokens + other.tokens, self.requests + other.requests)

    @property
    def usd(self) -> float:
        return self.pico / PICO


@dataclass(frozen=True)
class Tariff:
    """Picodollars per token."""

    read: int
    cached: int
    written: int

    @classmethod
    def of(cls, price: Price | None, discount: float = 0.0) -> Tariff:
        """Without a price nothing costs money; a money budget without one is refused before.

        Args:
            discount: share of the price that is taken off.
        """
        if price is None:
            return cls(0, 0, 0)
        cached = price.input_usd if price.cached_input_usd is None else price.cached_input_usd
        return cls(*(_per_token(usd, discount) for usd in (price.input_usd, cached, price.output_usd)))

    def most(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Cost:
        """What a request costs at most: no token is less than a byte of text, and the answer is as long as allowed."""
        sent = OVERHEAD_TOKENS + sum(len(text.encode()) for message in messages for text in message.values())
        dearest = max(self.read, self.cached)
        return Cost(sent * dearest + max_tokens * self.written, sent + max_tokens, 1)

    def of_reply(self, reply: Reply) -> Cost | None:
        """What the server counted; None where it did not count."""
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            return None
        cached = min(reply.cached_tokens, reply.prompt_tokens)
        read = (reply.prompt_tokens - cached) * self.read + cached * self.cached
        written = reply.completion_tokens
        return Cost(read + written * self.written, reply.prompt_tokens + written, 1)


def _per_token(usd_per_million: float, discount: float) -> int:
    """Rounded up, so that no sum of ours is below the server's."""
    return math.ceil(Decimal(str(usd_per_million)) * (1 - Decimal(str(discount))) * PICO / 10**6)
