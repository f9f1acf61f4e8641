"""Timing single requests, and what the times come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PASSES = 3
"""Parts into which the timed requests are dealt, one after the other: the spread of their medians is the noise."""

BUCKETS = 3
"""Of prompt length, with about as many requests in each."""


@dataclass(frozen=True)
class Timed:
    """One request, alone on the machine.

    Attributes:
        prompt_tokens, tokens: read and written.
        first_s: until the first token, rendering and tokenising included.
        total_s: until the last one.
    """

    prompt_tokens: int
    tokens: int
    first_s: float
    total_s: float


def passes(lengths: Sequence[int]) -> list[list[int]]:
    """Requests dealt into `PASSES` parts of like lengths, as positions in `lengths`, each part in its given order.

    Whatever changes while a machine is measured (heat, neighbours) then shows as a difference between the parts.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [sorted(order[start::PASSES]) for start in range(min(PASSES, len(order)))]


def summary(parts: Sequence[Sequence[Timed]]) -> dict[str, Any]:
    """Medians, tails and spread over the timed requests of all passes, under the names that evidence has."""
    import numpy as np

    times = [timed for part in parts for timed in part]
    total = np.array([timed.total_s for timed in times])
    first = np.array([timed.first_s for timed in times])
    tokens = np.array([timed.tokens for timed in times])
    decode = (total - first)[tokens > 1] / (tokens - 1)[tokens > 1]
    medians = [float(np.median([timed.total_s for timed in part])) * 1e3 for part in parts]
    return {
        **{f"latency_p{p}_ms": _percentile_ms(total, p) for p in (50, 90, 95, 99)},
        "latency_spread_ms": [min(medians), max(medians)],
        "latency_by_length": _by_length(times),
        "ttft_p50_ms": _percentile_ms(first, 50),
        "tpot_p50_ms": _percentile_ms(decode, 50) if len(decode) else 0.0,
        "tokens_per_s": float(tokens.sum() / total.sum()),
        "tokens_per_answer": float(tokens.mean()),
        "tokens_per_prompt": float(np.mean([timed.prompt_tokens for timed in times])),
    }


def _by_length(times: Sequence[Timed]) -> list[dict[str, Any]]:
    """Latency of short, middling and long prompts; fewer groups where the lengths hardly differ."""
    import numpy as np

    lengths = np.array([timed.prompt_tokens for timed in times])
    # Values that occur, so that prompts of one length are never parted.
    edges = np.quantile(lengths, [i / BUCKETS for i in range(1, BUCKETS)], method="lower")
    group = np.searchsorted(edges, lengths)
    buckets = []
    for number in np.unique(group):
        total = np.array([timed.total_s for timed in times])[group == number]
        first = np.array([timed.first_s for timed in times])[group == number]
        buckets.append(
            {
                "tokens_from": int(lengths[group == number].min()),
                "tokens_to": int(lengths[group == number].max()),
                "requests": len(total),
                "p50_ms": _percentile_ms(total, 50),
                "p95_ms": _percentile_ms(total, 95),
                "ttft_p50_ms": _percentile_ms(first, 50),
            }
        )
    return buckets


def _percentile_ms(seconds: Any, percent: float) -> float:
    import numpy as np

    return float(np.percentile(seconds, percent) * 1e3)
