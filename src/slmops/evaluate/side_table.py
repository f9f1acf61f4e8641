"""An evaluation without a recipe as a table of plain text, on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slmops.console import WIDTH, fit

_LABEL = 18
_CELL = 12
_NAME = 16
_MOST = (WIDTH - _LABEL) // _CELL

_COSTS: Sequence[tuple[str, str, float, int]] = (
    ("latency p50 ms", "latency_p50_ms", 1, 1),
    ("latency p95 ms", "latency_p95_ms", 1, 1),
    ("first token ms", "ttft_p50_ms", 1, 1),
    ("tokens/s", "tokens_per_s", 1, 0),
    ("rows/s, batched", "batched_rows_per_s", 1, 1),
    ("weights MB", "weights_bytes", 1e-6, 1),
    ("peak memory MB", "peak_rss_bytes", 1e-6, 0),
    ("parameters M", "parameters", 1e-6, 1),
    ("energy J/request", "energy_j_per_request", 1, 2),
    ("USD per 1,000", "usd_per_1000", 1, 4),
)

Cell = Callable[[Mapping[str, Any]], str]


def side_table(evidence: Mapping[str, Any]) -> str:
    """The models beside each other, then what each has over or under the first."""
    models = evidence["models"]
    names = list(models)
    lines: list[str] = []
    for start in range(0, len(names), _MOST):
        lines += [*_block(evidence, names[start : start + _MOST]), ""]
    return "\n".join([*lines, _rows(evidence), *_pairs(evidence)]) + "\n"


def _block(evidence: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    models = [evidence["models"][name] for name in names]
    figures = list(dict.fromkeys(figure for model in models for figure in model.get("quality", {})))
    rows: list[tuple[str, Cell]] = []
    for figure in figures:
        rows.append((figure.replace("_", " "), _quality(figure)))
        if figure == evidence["headline"]:
            rows.append(("  95 % interval", _interval(figure)))
    rows += [
        (label, _number(name, scale, digits))
        for label, name, scale, digits in _COSTS
        if any(name in model for model in models)
    ]
    body = [_line(label, [cell(model) for model in models]) for label, cell in rows]
    return [_line("", names), "─" * (_LABEL + _CELL * len(names)), *body]


def _line(label: str, cells: Sequence[str]) -> str:
    return f"{fit(label, _LABEL - 1):<{_LABEL}}" + "".join(f"{fit(cell, _CELL - 1):>{_CELL}}" for cell in cells)


def _quality(figure: str) -> Cell:
    return lambda model: f"{model['quality'][figure]:.3f}" if figure in model.get("quality", {}) else "–"


def _interval(figure: str) -> Cell:
    def cell(model: Mapping[str, Any]) -> str:
        low, high = model["interval"][figure]
        return f"{low:.2f}–{high:.2f}"

    return cell


def _number(name: str, scale: float, digits: int) -> Cell:
    return lambda model: f"{model[name] * scale:,.{digits}f}" if name in model else "–"


def _rows(evidence: Mapping[str, Any]) -> str:
    if evidence.get("partial"):
        return f"n = {evidence['n_test']} of {evidence['n_rows']} rows: partial"
    return f"n = {evidence['n_test']} rows"


def _pairs(evidence: Mapping[str, Any]) -> list[str]:
    """Differences of the main figure, each with its corrected p-value."""
    return [
        fit(
            f"{fit(test['ours'], _NAME)} against {fit(test['theirs'], _NAME)}: {test['points']:+.1f} points of "
            f"{test['figure'].replace('_', ' ')} (p = {test['p_adjusted']:.2g})"
        )
        for test in evidence["paired"]
        if test["figure"] == evidence["headline"]
    ]
