"""Models as dots: quality against latency and size, and the front of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slmops.report.svg import CHARACTER, Drawing, both
from slmops.report.words import figure_name, full, in_order, lower_is_better, shown, slot, three

_AREA = 26.0
"""Radius of the largest dot on a wide page, in pixels."""


class _Dot(NamedTuple):
    x: float
    y: float
    radius: float
    kind: str
    name: str


def quality_latency_size(evidence: Mapping[str, Any]) -> str | None:
    """The headline with its interval against the time of a request; the area of a dot is the size of the weights.

    A model without a latency, as the floor, is a line across. None where fewer than two models have one.
    """
    headline = evidence["headline"]
    models = {r: m for r in in_order(evidence["models"]) if headline in (m := evidence["models"][r]).get("quality", {})}
    timed = [role for role in models if models[role].get("latency_p50_ms")]
    if len(timed) < 2:
        return None
    return both(lambda width: _scatter(headline, models, timed, width))


def _scatter(headline: str, models: Mapping[str, Any], timed: Sequence[str], width: float) -> str:
    wide = width > 500
    drawing = Drawing(width, 400 if wide else 340, top=30, right=20)
    times = [models[role]["latency_p50_ms"] for role in timed]
    x = drawing.x_scale(min(times) / 1.6, max(times) * 1.6, log=True)
    ends = [end for m in models.values() for end in (m.get("interval", {}).get(headline) or [m["quality"][headline]])]
    y = drawing.y_scale(*padded(ends, headline))
    drawing.y_axis(y, figure_name(headline), lambda v: f"{v:.2g}")
    drawing.x_axis(x, "latency p50, ms (log scale)")
    for role in (role for role in models if role not in timed):
        at = y(models[role]["quality"][headline])
        drawing.line(drawing.left, at, width - drawing.right, at, f"across c{slot(role, models)}")
        drawing.text(drawing.left + 6, at - 6, _said(role, headline, models[role], wide), "name")
    largest = max((models[role].get("weights_bytes") or 0 for role in timed), default=0)
    dots = []
    for role in sorted(timed, key=lambda role: -(models[role].get("weights_bytes") or 0)):
        model, kind = models[role], f"c{slot(role, models)}"
        dot = _Dot(
            x(model["latency_p50_ms"]),
            y(model["quality"][headline]),
            _radius(model.get("weights_bytes"), largest, wide),
            kind,
            _said(role, headline, model, wide),
        )
        if interval := model.get("interval", {}).get(headline):
            drawing.line(dot.x, y(interval[0]), dot.x, y(interval[1]), f"whisker {kind}")
        drawing.dot(dot.x, dot.y, dot.radius, f"dot {kind}")
        drawing.dot(dot.x, dot.y, 2.5, f"heart {kind}")
        dots.append(dot)
    _names(drawing, dots)
    said = "; ".join(_aloud(role, headline, models[role]) for role in models)
    return drawing.svg(
        f"{figure_name(headline)} against latency; the area of a dot is the size of the weights. {said}."
    )


def front(found: Mapping[str, Any]) -> str:
    """The candidates of a search: quality against size of the weights, the best of each size joined by a line."""
    return both(lambda width: _front(found, width))


def _front(found: Mapping[str, Any], width: float) -> str:
    wide = width > 500
    drawing = Drawing(width, 340 if wide else 300, top=30, right=24)
    candidates = found["candidates"]
    x = drawing.x_scale(min(_mb(c) for c in candidates) / 1.25, max(_mb(c) for c in candidates) * 1.25, log=True)
    ends = [end for c in candidates for end in (c.get("interval") or [c["quality"]])]
    y = drawing.y_scale(*padded(ends, found["figure"]))
    drawing.y_axis(y, figure_name(found["figure"]), lambda v: f"{v:.2g}")
    drawing.x_axis(x, "weights, MB (log scale)")
    best = sorted((c for c in candidates if c["front"]), key=_mb)
    if len(best) > 1:
        drawing.path([(x(_mb(c)), y(c["quality"])) for c in best], "curve c5")
    for c in candidates:
        kind = "c5" if c["front"] else "quiet"
        if c.get("interval"):
            drawing.line(x(_mb(c)), y(c["interval"][0]), x(_mb(c)), y(c["interval"][1]), f"whisker thin {kind}")
        drawing.dot(
            x(_mb(c)), y(c["quality"]), 7 if c["shipped"] else 4, f"{'dot' if c['shipped'] else 'heart'} {kind}"
        )
    named = best if wide else [c for c in best if c["shipped"]]
    _names(drawing, [_Dot(x(_mb(c)), y(c["quality"]), 7.0, "c5", c["name"]) for c in named])
    said = "; ".join(f"{c['name']} {shown(found['figure'], c['quality'])} at {three(_mb(c))} MB" for c in best)
    return drawing.svg(
        f"{len(candidates)} candidates, {figure_name(found['figure'])} against size; the best are {said}."
    )


def _names(drawing: Drawing, dots: Sequence[_Dot]) -> None:
    """Each dot's name beside, above or below it, where it covers no other name and no other dot."""
    taken = [(dot.x - dot.radius, dot.y - dot.radius, dot.x + dot.radius, dot.y + dot.radius) for dot in dots]
    for x, y, radius, kind, name in dots:
        width, away = len(name) * (CHARACTER + 0.6), radius + 7
        corners = [(x + away, y - 7), (x - away - width, y - 7)]
        corners += [(x - width / 2, y + side * (away + far) - 7) for far in (6, 22, 38, 54) for side in (-1, 1)]
        corners += [(x + away, y - 7 + side * far) for far in (16, 32, 48) for side in (-1, 1)]
        boxes = [(left, top, left + width, top + 14) for left, top in corners]
        right, bottom = drawing.width, drawing.height - drawing.bottom
        boxes = [box for box in boxes if box[0] > drawing.left and box[2] < right and box[1] > 12 and box[3] < bottom]
        free = (box for box in boxes if not any(_touch(box, other) for other in taken))
        box = next(free, boxes[0] if boxes else (drawing.left, y - 7, drawing.left + width, y + 7))
        taken.append(box)
        drawing.text(box[0], box[1] + 11, name, f"name ink {kind}")


def _touch(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _said(role: str, headline: str, model: Mapping[str, Any], wide: bool) -> str:
    size = f", {three(model['weights_bytes'] / 1e6)} MB" if wide and model.get("weights_bytes") else ""
    return f"{full(role)} {shown(headline, model['quality'][headline])}{size}"


def _aloud(role: str, headline: str, model: Mapping[str, Any]) -> str:
    time = f" at {three(model['latency_p50_ms'])} ms" if model.get("latency_p50_ms") else ""
    return f"{_said(role, headline, model, True)}{time}"


def _radius(weights: float | None, largest: float, wide: bool) -> float:
    return max(5.0, (_AREA if wide else _AREA * 0.75) * math.sqrt((weights or 0) / (largest or 1)))


def padded(values: Sequence[float], figure: str = "") -> tuple[float, float]:
    """Ends of an axis with room around the values; a share stays within 0 and 1."""
    low, high = min(values), max(values)
    room = (high - low) * 0.12 or abs(high) * 0.1 or 1
    share = low >= 0 and high <= 1 and not lower_is_better(figure)
    return max(low - room, 0) if low >= 0 else low - room, min(high + room, 1) if share else high + room


def _mb(candidate: Mapping[str, Any]) -> float:
    return float(candidate["weights_bytes"]) / 1e6
