"""The measured figures of a model and how they are written: one list for the terminal, the page and the card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmops.report.words import three


@dataclass(frozen=True)
class Cost:
    """One measured figure.

    Attributes:
        key: where it stands in a model's evidence.
        scale: from the unit of the evidence to `unit`.
        more_is_better: None where neither is.
        main: stands in the comparison; the others stand in the chapter about cost alone.
    """

    key: str
    label: str
    unit: str
    scale: float = 1
    more_is_better: bool | None = False
    main: bool = False

    def value(self, model: Mapping[str, Any]) -> float | None:
        return None if model.get(self.key) is None else model[self.key] * self.scale

    def text(self, model: Mapping[str, Any]) -> str | None:
        value = self.value(model)
        return None if value is None else three(value)


COSTS = (
    Cost("latency_p50_ms", "latency p50", "ms", main=True),
    Cost("latency_p90_ms", "latency p90", "ms"),
    Cost("latency_p95_ms", "latency p95", "ms", main=True),
    Cost("latency_p99_ms", "latency p99", "ms"),
    Cost("ttft_p50_ms", "first token", "ms", main=True),
    Cost("tpot_p50_ms", "next token", "ms"),
    Cost("tokens_per_s", "tokens/s", "", more_is_better=True, main=True),
    Cost("tokens_per_answer", "tokens/answer", "", more_is_better=None),
    Cost("batched_rows_per_s", "rows/s, batch", "", more_is_better=True),
    Cost("batched_tokens_per_s", "tok/s, batch", "", more_is_better=True),
    Cost("load_s", "load time", "s"),
    Cost("weights_bytes", "weights", "MB", 1e-6, main=True),
    Cost("peak_rss_bytes", "peak memory", "MB", 1e-6, main=True),
    Cost("parameters", "parameters", "M", 1e-6, main=True),
    Cost("cpu_cores_used", "cores used", "", more_is_better=None),
    Cost("energy_j_per_request", "energy/request", "J"),
    Cost("usd_per_1000", "USD per 1,000", "", main=True),
)


def measured(models: Mapping[str, Mapping[str, Any]], *, main_only: bool = False) -> list[Cost]:
    """The figures that at least one of the models has."""
    return [
        cost
        for cost in COSTS
        if (cost.main or not main_only) and any(cost.value(model) is not None for model in models.values())
    ]
