"""The comparison as a table of plain text that fits a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slmops.console import fit

ROLES = {
    "teacher": "teacher",
    "teacher_same": "quantised",
    "baseline": "baseline",
    "student": "student",
    "shipped": "shipped",
    "floor": "floor",
}
SUBTITLES = {
    "teacher": "PyTorch",
    "teacher_same": "teacher",
    "baseline": "untaught",
    "student": "PyTorch",
    "shipped": "quantised",
    "floor": "no model",
}
RIVALS = ("baseline", "floor")
"""What the shipped model must beat to be worth its making."""

LABEL_WIDTH = 16
CELL_WIDTH = 10

Cell = Callable[[Mapping[str, Any]], str]


def _share(name: str) -> Cell:
    return lambda model: f"{model['quality'][name]:.3f}" if name in model.get("quality", {}) else "–"


def _number(name: str, scale: float = 1, digits: int = 1) -> Cell:
    return lambda model: f"{model[name] * scale:,.{digits}f}" if name in model else "–"


def _interval(name: str) -> Cell:
    return lambda model: "–".join(f"{end:.2f}" for end in model.get("interval", {}).get(name, ())) or "–"


COSTS: Sequence[tuple[str, Cell]] = (
    ("latency p50 ms", _number("latency_p50_ms")),
    ("latency p95 ms", _number("latency_p95_ms")),
    ("first token ms", _number("ttft_p50_ms")),
    ("tokens/s", _number("tokens_per_s", digits=0)),
    ("weights MB", _number("weights_bytes", 1e-6)),
    ("peak memory MB", _number("peak_rss_bytes", 1e-6, 0)),
    ("parameters M", _number("parameters", 1e-6)),
)


def table(evidence: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> str:
    """The models side by side, then what was kept and saved, then the tests and the gates."""
    models = {role: evidence["models"][role] for role in ROLES if role in evidence["models"]}
    lines = [_line("", [ROLES[role] for role in models]), _line("", [SUBTITLES[role] for role in models])]
    lines.append("─" * (LABEL_WIDTH + CELL_WIDTH * len(models)))
    names = list(models["shipped"]["quality"])
    rows: list[tuple[str, Cell]] = [(name.replace("_", " "), _share(name)) for name in names]
    rows.insert(1, ("  95 % interval", _interval(names[0])))
    lines += [_line(label, [cell(model) for model in models.values()]) for label, cell in (*rows, *COSTS)]
    return "\n".join([*lines, "", *_kept(evidence), *_saved(evidence), *_paired(evidence), *_gates(verdicts)]) + "\n"


def _line(label: str, cells: Sequence[str]) -> str:
    return f"{fit(label, LABEL_WIDTH - 1):<{LABEL_WIDTH}}" + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)


def _kept(evidence: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in evidence["kept"].items():
        if value is None:
            continue
        low, high = evidence["kept_interval"][name]
        lines.append(f"{name.replace('_', ' ')}: {value:.1%} of the teacher's (95 % interval {low:.1%} to {high:.1%})")
    return [f"n = {evidence['n_test']} held-out rows", *lines]


def _saved(evidence: Mapping[str, Any]) -> list[str]:
    labels = {
        "time_saving_torch": "time saved against the teacher in PyTorch",
        "time_saving_same_engine": "time saved against the quantised teacher, same engine",
        "weights_saving": "weights saved",
        "memory_saving": "memory saved",
    }
    lines = [f"{labels[name]}: {value:.1%}" for name, value in evidence["savings"].items()]
    if evidence["parity"] is not None:
        lines.append(f"same text as the student before quantising: {evidence['parity']:.1%}")
    return lines


def _paired(evidence: Mapping[str, Any]) -> list[str]:
    return [
        f"{test['ours']} against {test['theirs']}: {test['points']:+.1f} points of {test['figure'].replace('_', ' ')} "
        f"(p = {test['p_adjusted']:.2g})"
        for test in evidence["paired"]
        if (test["ours"], test["figure"]) == ("shipped", evidence["headline"]) and test["theirs"] in RIVALS
    ]


def _gates(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"gate {verdict['state']}: {verdict['message']}" for verdict in verdicts]
