"""What sets one model apart from the others: a line with its interval for each."""

from __future__ import annotations

from collections.abc import Sequence

from slmops.report.pairs import Difference
from slmops.report.svg import Drawing, both
from slmops.report.words import figure_name, full, p_value, points


def differences(tests: Sequence[Difference]) -> str | None:
    """What sets one model apart from each other one: points with their interval, and zero."""
    return both(lambda width: _forest(tests, width)) if tests else None


def _forest(tests: Sequence[Difference], width: float) -> str:
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
        kind = "quiet" if test.reading == "no difference shown" else test.reading
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
