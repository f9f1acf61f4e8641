"""Lines over time and length: training and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from slmops.report.svg import CHARACTER, Drawing, both, spread
from slmops.report.words import full, in_order, slot, three

_NO_LOSS = frozenset(
    {"step", "tokens", "seconds", "cpu_seconds", "rss_bytes", "gpu_bytes", "on_policy_tokens", "on_policy_seconds"}
)
"""What else an entry of a training's history holds, beside numbers of callbacks, which have a dot in their names."""


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> str | None:
    """Loss against tokens seen, one line per trained model and loss term; `validation` has fewer points."""
    lines = [
        (role, term, [(entry["tokens"], entry[term]) for entry in history if entry.get(term, 0) > 0])
        for role, history in histories.items()
        for term in dict.fromkeys(name for entry in history for name in entry)
        if term not in _NO_LOSS and "." not in term
    ]
    lines = [line for line in lines if len(line[2]) > 1]
    return both(lambda width: _curves(lines, width)) if lines else None


def resources(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> list[tuple[str, str]]:
    """What trainings took while they went on: figures with what each shows, against tokens seen.

    Tokens and processor time are rates between two entries of a history; memory is that of the process, libraries and
    all, and of the GPU where there was one. Behind them the numbers of the user's callbacks.
    """
    shown: dict[str, Callable[[Mapping[str, float], Mapping[str, float]], float]] = {
        "tokens per second": lambda before, now: _rate("tokens", before, now),
        "cores at work": lambda before, now: _rate("cpu_seconds", before, now),
        "memory of the process, MB": lambda _, now: now["rss_bytes"] / 1e6,
        "memory of the GPU, MB": lambda _, now: now.get("gpu_bytes", 0.0) / 1e6,
    }
    numbers = dict.fromkeys(name for history in histories.values() for one in history for name in one if "." in name)
    known = {role: [one for one in history if "rss_bytes" in one] for role, history in histories.items()}
    found = []
    for what, of in shown.items():
        lines = {
            role: [(now["tokens"], value) for before, now in pairwise(history) if (value := of(before, now)) > 0]
            for role, history in known.items()
        }
        lines = {role: line for role, line in lines.items() if len(line) > 1}
        if lines:
            found.append((what, both(partial(_resource, what, lines))))
    for name in numbers:
        points = {
            role: [(one["tokens"], one[name]) for one in history if name in one] for role, history in histories.items()
        }
        if points := {role: line for role, line in points.items() if len(line) > 1}:
            found.append((name, both(partial(_resource, name, points))))
    return found


def _rate(name: str, before: Mapping[str, float], now: Mapping[str, float]) -> float:
    return (now[name] - before[name]) / max(now["seconds"] - before["seconds"], 1e-9)


def _resource(what: str, lines: Mapping[str, list[tuple[float, float]]], width: float) -> str:
    roles = list(lines)
    drawing = Drawing(width, 220, top=30, right=max(map(len, roles)) * (CHARACTER + 1) + 14)
    x = drawing.x_scale(0, max(at for line in lines.values() for at, _ in line))
    values = [value for line in lines.values() for _, value in line]
    y = drawing.y_scale(min(0.0, *values) * 1.15, max(0.0, *values) * 1.15 or 1.0)
    drawing.y_axis(y, what)
    drawing.x_axis(x, "tokens seen", lambda v: f"{v / 1000:,.0f}k" if v >= 1000 else f"{v:.0f}")
    places = spread([y(line[-1][1]) + 4 for line in lines.values()], 15, drawing.top, drawing.height - drawing.bottom)
    for (role, line), place in zip(lines.items(), places, strict=True):
        drawing.path([(x(at), y(value)) for at, value in line], f"curve c{slot(role, roles)}")
        drawing.text(x(line[-1][0]) + 6, place, role, f"name ink c{slot(role, roles)}")
    ends = "; ".join(f"{role} ends at {three(line[-1][1])}" for role, line in lines.items())
    return drawing.svg(f"{what} against tokens seen: {ends}.")


def _curves(lines: Sequence[tuple[str, str, list[tuple[float, float]]]], width: float) -> str:
    wide = width > 500
    names = [f"{role}: {term}" for role, term, _ in lines]
    drawing = Drawing(width, 340 if wide else 300, top=30, right=max(map(len, names)) * (CHARACTER + 1) + 14)
    x = drawing.x_scale(0, max(at for *_, line in lines for at, _ in line))
    values = [value for *_, line in lines for _, value in line]
    y = drawing.y_scale(min(values) / 1.15, max(values) * 1.15, log=True)
    drawing.y_axis(y, "loss per answer token (log scale)")
    drawing.x_axis(x, "tokens seen", lambda v: f"{v / 1000:,.0f}k" if v >= 1000 else f"{v:.0f}")
    for role, term, line in lines:
        dashed = " dashed" if term != "text" else ""
        drawing.path([(x(at), y(value)) for at, value in line], f"curve c{slot(role, [r for r, *_ in lines])}{dashed}")
    places = spread([y(line[-1][1]) + 4 for *_, line in lines], 15, drawing.top, drawing.height - drawing.bottom)
    for name, (role, _, line), place in zip(names, lines, places, strict=True):
        drawing.text(x(line[-1][0]) + 6, place, name, f"name ink c{slot(role, [r for r, *_ in lines])}")
    ends = "; ".join(f"{name} ends at {three(line[-1][1])}" for name, (*_, line) in zip(names, lines, strict=True))
    return drawing.svg(f"Training loss of each model against tokens seen: {ends}.")


def latency_by_length(models: Mapping[str, Any]) -> str | None:
    """Time of a request against the length of its prompt: p50 as a line, p95 as a whisker."""
    measured = {
        role: models[role]["latency_by_length"] for role in in_order(models) if models[role].get("latency_by_length")
    }
    return both(lambda width: _lengths(measured, list(models), width)) if measured else None


def _lengths(measured: Mapping[str, Sequence[Mapping[str, float]]], models: Sequence[str], width: float) -> str:
    wide = width > 500
    drawing = Drawing(
        width, 340 if wide else 300, top=30, right=max(len(full(r)) for r in measured) * (CHARACTER + 1) + 16
    )
    middles = {r: [(b["tokens_from"] + b["tokens_to"]) / 2 for b in bins] for r, bins in measured.items()}
    every = [at for line in middles.values() for at in line]
    x = drawing.x_scale(min(every) * 0.9, max(max(every), min(every) * 1.1))
    times = [b[key] for bins in measured.values() for b in bins for key in ("p50_ms", "p95_ms")]
    y = drawing.y_scale(max(min(times), 1e-3) / 1.3, max(times) * 1.3, log=True)
    drawing.y_axis(y, "latency, ms (log scale)")
    drawing.x_axis(x, "tokens of the prompt", lambda v: f"{v:,.0f}")
    for role, bins in measured.items():
        kind = f"c{slot(role, models)}"
        drawing.path([(x(at), y(b["p50_ms"])) for at, b in zip(middles[role], bins, strict=True)], f"curve {kind}")
        for at, b in zip(middles[role], bins, strict=True):
            drawing.line(x(at), y(b["p50_ms"]), x(at), y(b["p95_ms"]), f"whisker thin {kind}")
            drawing.dot(x(at), y(b["p50_ms"]), 3, f"heart {kind}")
    last = [y(bins[-1]["p50_ms"]) + 4 for bins in measured.values()]
    places = spread(last, 15, drawing.top, drawing.height - drawing.bottom)
    for role, place in zip(measured, places, strict=True):
        drawing.text(x(middles[role][-1]) + 8, place, full(role), f"name ink c{slot(role, models)}")
    said = "; ".join(
        f"{full(r)} from {three(b[0]['p50_ms'])} to {three(b[-1]['p50_ms'])} ms" for r, b in measured.items()
    )
    return drawing.svg(f"Median latency from the shortest to the longest prompts: {said}.")
