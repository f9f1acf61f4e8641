"""What running costs: energy where nothing counted it, and money. Figures of the probe in, figures of evidence out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slmops.recipe.evaluate import Price, Running

COSTS = (
    *(f"latency_p{p}_ms" for p in (50, 90, 95, 99)),
    *("ttft_p50_ms", "tpot_p50_ms", "tokens_per_s", "tokens_per_answer", "tokens_per_prompt"),
    *("batched_rows_per_s", "batched_tokens_per_s", "load_s", "peak_rss_bytes"),
    *("cpu_cores_used", "cpu_s_per_request", "energy_j_per_request", "usd_per_1000"),
    *("weights_bytes", "parameters", "context_tokens", "threads"),
)
"""Every figure, none of quality, that there may be of a model."""

_HOUR_S = 3600
_MILLION = 1_000_000


def running_cost(figures: Mapping[str, Any], running: Running, price: Price | None = None) -> dict[str, Any]:
    """The figures that prices add to what the probe measured; empty for a model that no probe measured.

    Args:
        figures: `probe.json` of one model.
        running: the machine's watts and price.
        price: what the model costs per token where its answers are bought; it goes before the machine's.

    Returns:
        `energy_j_per_request` and `energy_method`, unless energy was measured: processor time x watts per core.
        `usd_per_1000` and `usd_method` where a price is given: a bought answer by its tokens; on a machine, the wall
        time of a thousand requests one after the other.
    """
    return _energy(figures, running) | _money(figures, running, price)


def _energy(figures: Mapping[str, Any], running: Running) -> dict[str, Any]:
    if "energy_method" in figures or "cpu_s_per_request" not in figures:
        return {}
    watts = running.watts_per_core
    return {
        "energy_j_per_request": figures["cpu_s_per_request"] * watts,
        "energy_method": f"estimated: processor time x {watts:g} W per core",
    }


def _money(figures: Mapping[str, Any], running: Running, price: Price | None) -> dict[str, Any]:
    if "tokens_per_s" not in figures:
        return {}
    if price is not None:
        if "tokens_per_prompt" not in figures:  # a server that does not count
            return {}
        read, written = figures["tokens_per_prompt"] * price.input_usd, figures["tokens_per_answer"] * price.output_usd
        return {
            "usd_per_1000": (read + written) * 1000 / _MILLION,
            "usd_method": f"bought: {price.input_usd:g} USD per million tokens read, {price.output_usd:g} written",
        }
    if running.machine_usd_per_hour is None:
        return {}
    seconds = figures["tokens_per_answer"] / figures["tokens_per_s"]
    return {
        "usd_per_1000": seconds * 1000 / _HOUR_S * running.machine_usd_per_hour,
        "usd_method": f"machine: {running.machine_usd_per_hour:g} USD per hour, one request at a time",
    }
