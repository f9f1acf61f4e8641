"""The figures of the report, each drawn twice: for a wide page and for a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slmops.report.pairs import Difference
from slmops.report.svg import CHARACTER, Drawing, spread
from slmops.report.words import figure_name, full, in_order, lower_is_better, p_value, points, shown, slot, three

WIDE, NARROW = 720, 340
_AREA = 26.0
"""Radius of the largest dot on a wide page, in pixels."""

Draw = Callable[[float], str]


def both(draw: Draw) -> str:
    """A figure for either width; the style sheet shows one of them."""
    return f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'


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
    y = drawing.y_scale(*_padded(ends, headline))
    drawing.y_axis(y, figure_name(headline), lambda v: f"{v:.2g}")
    drawing.x_axis(x, "latency p50, ms (log scale)")
    for role in models.keys() - set(timed):
        at = y(models[role]["quality"][headline])
        drawing.line(drawing.left, at, width - drawing.right, at, f"across c{slot(role, models)}")
        drawing.text(drawing.left + 6, at - 6, _said(role, headline, models[role], wide), "name")
    largest = max((models[role].get("weights_bytes") or 0 for role in timed), default=0)
    radii = [_radius(models[role].get("weights_bytes"), largest, wide) for role in timed]
    middles = [(x(models[role]["latency_p50_ms"]), y(models[role]["quality"][headline])) for role in timed]
    for role, (cx, cy), radius in sorted(zip(timed, middles, radii, strict=True), key=lambda one: -one[2]):
        kind = f"c{slot(role, models)}"
        if interval := models[role].get("interval", {}).get(headline):
            drawing.line(cx, y(interval[0]), cx, y(interval[1]), f"whisker {kind}")
        drawing.dot(cx, cy, radius, f"dot {kind}")
        drawing.dot(cx, cy, 2.5, f"heart {kind}")
    _names(drawing, [_said(role, headline, models[role], wide) for role in timed], middles, radii)
    said = "; ".join(_aloud(role, headline, models[role]) for role in models)
    return drawing.svg(
        f"{figure_name(headline)} against latency; the area of a dot is the size of the weights. {said}."
    )


def _names(drawing: Drawing, names: Sequence[str], dots: Sequence[tuple[float, float]], radii: Sequence[float]) -> None:
    """Each dot's name beside, above or below it, where it covers no other name and no other dot."""
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(dots, radii, strict=True)]
    for name, (x, y), radius in zip(names, dots, radii, strict=True):
        width, away = len(name) * CHARACTER, radius + 7
        corners = [(x + away, y - 7), (x - away - width, y - 7)]
        corners += [(x - width / 2, y + side * (away + far) - 7) for far in (6, 22, 38, 54) for side in (-1, 1)]
        corners += [(x + away, y - 7 + side * far) for far in (16, 32, 48) for side in (-1, 1)]
        boxes = [(left, top, left + width, top + 14) for left, top in corners]
        right, bottom = drawing.width, drawing.height - drawing.bottom
        boxes = [box for box in boxes if box[0] > drawing.left and box[2] < right and box[1] > 12 and box[3] < bottom]
        free = (box for box in boxes if not any(_touch(box, other) for other in taken))
        box = next(free, boxes[0] if boxes else (drawing.left, y - 7, drawing.left + width, y + 7))
        taken.append(box)
        drawing.text(box[0], box[1] + 11, name, "name")


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


def _padded(values: Sequence[float], figure: str = "") -> tuple[float, float]:
    """Ends of an axis with room around the values; a share stays within 0 and 1."""
    low, high = min(values), max(values)
    room = (high - low) * 0.12 or abs(high) * 0.1 or 1
    share = low >= 0 and high <= 1 and not lower_is_better(figure)
    return max(low - room, 0) if low >= 0 else low - room, min(high + room, 1) if share else high + room


def differences(tests: Sequence[Difference], models: Sequence[str]) -> str | None:
    """What sets one model apart from each other one: points with their interval, and zero."""
    return both(lambda width: _forest(tests, models, width)) if tests else None


def _forest(tests: Sequence[Difference], models: Sequence[str], width: float) -> str:
    wide = width > 500
    row = 30 if wide else 44
    drawing = Drawing(width, row * len(tests) + 46, left=190 if wide else 8, right=150 if wide else 12, top=8)
    low, high = min(0.0, *(t.low for t in tests)), max(0.0, *(t.high for t in tests))
    room = (high - low) * 0.06 or 1
    x = drawing.x_scale(low - room, high + room)
    drawing.x_axis(x, f"points of {figure_name(tests[0].figure)}", lambda v: points(v).removesuffix(".0"))
    drawing.line(x(0), drawing.top, x(0), drawing.height - drawing.bottom, "zero")
    for place, test in enumerate(tests):
        at = drawing.top + row * place + (row / 2 if wide else row - 12)
        kind = f"c{slot(test.theirs, models)}" if test.reading != "no difference shown" else "quiet"
        drawing.line(x(test.low), at, x(test.high), at, f"whisker {kind}")
        drawing.dot(x(test.points), at, 5, f"heart {kind}")
        name, figures = f"against {full(test.theirs)}", f"{points(test.points)}, {p_value(test.p)}"
        if wide:
            drawing.text(drawing.left - 14, at + 4, name, "name", "end")
            drawing.text(width - drawing.right + 14, at + 4, figures, "name")
        else:
            drawing.text(8, at - 12, f"{name}: {figures}", "name")
    said = "; ".join(f"{full(t.theirs)} {points(t.points)}, {points(t.low)} to {points(t.high)}" for t in tests)
    return drawing.svg(f"Difference in points of {full(tests[0].ours)} against each other model: {said}.")


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> str | None:
    """Loss against tokens seen, one line per trained model and loss term."""
    lines = [
        (role, term, [(entry["tokens"], entry[term]) for entry in history if entry.get(term, 0) > 0])
        for role, history in histories.items()
        for term in (history[0] if history else ())
        if term not in ("step", "tokens", "seconds")
    ]
    lines = [line for line in lines if len(line[2]) > 1]
    return both(lambda width: _curves(lines, width)) if lines else None


def _curves(lines: Sequence[tuple[str, str, list[tuple[float, float]]]], width: float) -> str:
    wide = width > 500
    names = [f"{role}: {term}" for role, term, _ in lines]
    drawing = Drawing(width, 340 if wide else 300, top=30, right=max(map(len, names)) * (CHARACTER + 1) + 14)
    x = drawing.x_scale(0, max(at for *_, line in lines for at, _ in line))
    values = [value for *_, line in lines for _, value in line]
    y = drawing.y_scale(min(values) / 1.15, max(values) * 1.15, log=True)
    drawing.y_axis(y, "loss, nats per answer token (log scale)")
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


def reliability(calibrated: Mapping[str, Mapping[str, Any]], models: Sequence[str]) -> str:
    """Accuracy against the confidence that a model states; on the diagonal both agree. A dot's area is its rows."""
    return both(lambda width: _reliability(calibrated, models, width))


def _reliability(calibrated: Mapping[str, Mapping[str, Any]], models: Sequence[str], width: float) -> str:
    drawing = _square(width)
    x, y = drawing.x_scale(0, 1), drawing.y_scale(0, 1)
    drawing.y_axis(y, "accuracy", lambda v: f"{v:.1f}")
    drawing.x_axis(x, "confidence", lambda v: f"{v:.1f}")
    drawing.line(x(0), y(0), x(1), y(1), "zero")
    for role, one in calibrated.items():
        bins, kind = [b for b in one["bins"] if b["rows"]], f"c{slot(role, models)}"
        most = max((b["rows"] for b in bins), default=1)
        drawing.path([(x(b["confidence"]), y(b["accuracy"])) for b in bins] or [(x(0), y(0))], f"curve {kind}")
        for b in bins:
            drawing.dot(x(b["confidence"]), y(b["accuracy"]), 3 + 6 * math.sqrt(b["rows"] / most), f"dot {kind}")
    said = "; ".join(f"{full(role)} is off by {one['ece']:.3f} on average" for role, one in calibrated.items())
    return drawing.svg(f"Accuracy against stated confidence: {said}.")


def abstention(calibrated: Mapping[str, Mapping[str, Any]], models: Sequence[str]) -> str:
    """Accuracy of the answers that are left when the least sure ones are held back."""
    return both(lambda width: _abstention(calibrated, models, width))


def _abstention(calibrated: Mapping[str, Mapping[str, Any]], models: Sequence[str], width: float) -> str:
    drawing = _square(width)
    values = [point["accuracy"] for one in calibrated.values() for point in one["abstention"]]
    x, y = drawing.x_scale(0, 1), drawing.y_scale(*_padded(values or [0, 1]))
    drawing.y_axis(y, "accuracy of what is answered", lambda v: f"{v:.2g}")
    drawing.x_axis(x, "share of rows answered", lambda v: f"{v:.0%}")
    for role, one in calibrated.items():
        line = sorted((point["coverage"], point["accuracy"]) for point in one["abstention"])
        if line:
            drawing.path([(x(at), y(value)) for at, value in line], f"curve c{slot(role, models)}")
    said = "; ".join(_held_back(role, one["abstention"]) for role, one in calibrated.items() if one["abstention"])
    return drawing.svg(f"Accuracy of the answers given, against the share of rows answered: {said}.")


def _held_back(role: str, line: Sequence[Mapping[str, float]]) -> str:
    half = min(line, key=lambda point: abs(point["coverage"] - 0.8))
    return f"{full(role)} {half['accuracy']:.3f} on the surest {half['coverage']:.0%}"


def _square(width: float) -> Drawing:
    side = min(width, 350)
    return Drawing(side, side * 0.86, top=30)


def front(found: Mapping[str, Any]) -> str:
    """The candidates of a search: quality against size of the weights, the best of each size joined by a line."""
    return both(lambda width: _front(found, width))


def _front(found: Mapping[str, Any], width: float) -> str:
    wide = width > 500
    drawing = Drawing(width, 340 if wide else 300, top=30, right=24)
    candidates = found["candidates"]
    x = drawing.x_scale(min(_mb(c) for c in candidates) / 1.25, max(_mb(c) for c in candidates) * 1.25, log=True)
    ends = [end for c in candidates for end in (c.get("interval") or [c["quality"]])]
    y = drawing.y_scale(*_padded(ends, found["figure"]))
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
    _names(drawing, [c["name"] for c in named], [(x(_mb(c)), y(c["quality"])) for c in named], [7.0] * len(named))
    said = "; ".join(f"{c['name']} {shown(found['figure'], c['quality'])} at {three(_mb(c))} MB" for c in best)
    return drawing.svg(
        f"{len(candidates)} candidates, {figure_name(found['figure'])} against size; the best are {said}."
    )


def _mb(candidate: Mapping[str, Any]) -> float:
    return float(candidate["weights_bytes"]) / 1e6
