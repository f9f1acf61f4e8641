"""One dot for each student: exact match on the test rows against latency, and against size."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from _headline.cells import TASKS
from _headline.ladder import Rung
from _headline.table import SETTINGS
from slmops.report.plane import padded
from slmops.report.svg import CHARACTER, Drawing
from slmops.report.words import three

WIDTH, HEIGHT, HEAD = 380, 320, 46
KINDS = ("lm.int8", "lm.int4", "tags.int8", "tags.int4")
COLOURS = {"lm": "#1f78b4", "tags": "#0b7a57", "teacher": "#414b5a", "floor": "#6b7280"}
PANELS = (("latency_p50_ms", "latency p50, ms (log scale)", 1.0), ("weights_bytes", "weights, MB (log scale)", 1e6))
STYLE = f"""
svg {{ background: #fcfbf8; font: 12px system-ui, sans-serif; }}
.grid, .axis {{ stroke: #e2dfd7; }} .axis {{ stroke: #59616b; }}
text {{ fill: #59616b; }} .title {{ fill: #1c2127; font-weight: 600; font-size: 14px; }} .name {{ fill: #1c2127; }}
circle {{ stroke-width: 1.5; }} .chosen {{ fill: none; stroke: #a8325e; stroke-width: 2; }}
.lm {{ stroke: {COLOURS["lm"]}; fill: {COLOURS["lm"]}; }}
.tags {{ stroke: {COLOURS["tags"]}; fill: {COLOURS["tags"]}; }}
.int4 {{ fill: #fcfbf8; }} .teacher {{ stroke: {COLOURS["teacher"]}; fill: {COLOURS["teacher"]}; }}
.across {{ stroke: {COLOURS["floor"]}; stroke-dasharray: 5 4; }}
"""


def draw(members: Sequence[Rung], chosen: Rung) -> str:
    """The whole figure as an SVG that stands alone; a panel for each measure that is known."""
    known = [panel for panel in PANELS if chosen.measured("shipped", panel[0])]
    panels = "".join(
        f'<g transform="translate({place * WIDTH} {HEAD})">{_panel(members, chosen, *panel)}</g>'
        for place, panel in enumerate(known)
    )
    task, setting = chosen.group
    rows = chosen.records[0]["rows"]["test"]
    title = f"{TASKS[task]}, {SETTINGS[setting]}: exact match on {rows:,} test rows"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {2 * WIDTH} {HEIGHT + HEAD}" '
        f'aria-label="{escape(title, quote=True)}"><style>{STYLE}</style>'
        f'<text class="title" x="8" y="20">{escape(title)}</text>{_legend()}{panels}</svg>\n'
    )


def _panel(members: Sequence[Rung], chosen: Rung, measure: str, label: str, unit: float) -> str:
    drawing = Drawing(WIDTH, HEIGHT, top=24, right=16)
    students = [(rung, at) for rung in members if (at := rung.measured("shipped", measure))]
    teacher = chosen.measured("teacher", measure)
    places = [at / unit for _, at in students] + ([teacher / unit] if teacher else [])
    levels = {role: chosen.mean("test", role, chosen.main[0]) for role in ("teacher", "floor")}
    heights = [_height(rung) for rung, _ in students] + [level for level in levels.values() if level is not None]
    x, y = drawing.x_scale(min(places) / 1.3, max(places) * 1.3, log=True), drawing.y_scale(*padded(heights))
    drawing.y_axis(y, "exact match", lambda value: f"{value:.2g}")
    drawing.x_axis(x, label, three)
    if levels["floor"] is not None:
        at = y(levels["floor"])
        drawing.line(drawing.left, at, WIDTH - drawing.right, at, "across")
        drawing.text(drawing.left + 4, at - 5, "no model", "label")
    if teacher and levels["teacher"] is not None:
        drawing.dot(x(teacher / unit), y(levels["teacher"]), 6, "teacher")
        drawing.text(x(teacher / unit), y(levels["teacher"]) - 10, "teacher", "name", "end")
    for rung, at in students:
        drawing.dot(x(at / unit), y(_height(rung)), 4, _kind(rung).replace(".", " "))
        if rung is chosen:
            drawing.dot(x(at / unit), y(_height(rung)), 9, "chosen")
            drawing.text(x(at / unit), y(_height(rung)) + 22, "chosen", "name", "middle")
    return "".join(drawing.parts)


def _height(rung: Rung) -> float:
    return rung.mean("test", "shipped", rung.main[0]) or 0.0


def _kind(rung: Rung) -> str:
    return f"{rung.label.split('-')[0]}.{rung.label.split('.')[-1]}"


def _legend() -> str:
    words = {"lm": "writes JSON", "tags": "tags tokens"}
    parts, x = [], 8.0
    for kind in KINDS:
        head, precision = kind.split(".")
        name = f"{words[head]}, {precision}"
        parts.append(f'<circle class="{head} {precision}" cx="{x + 4}" cy="36" r="4"/>')
        parts.append(f'<text x="{x + 14}" y="40">{name}</text>')
        x += 28 + len(name) * CHARACTER
    return "".join(parts)
