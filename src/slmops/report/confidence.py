"""Whether a model knows when it is wrong: calibration and abstention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from slmops.report.plane import padded
from slmops.report.svg import Drawing, both
from slmops.report.words import full, slot


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
    x, y = drawing.x_scale(0, 1), drawing.y_scale(*padded(values or [0, 1]))
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
