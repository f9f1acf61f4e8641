"""The page of a search over settings: what came of the trials, when, and which settings mattered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.report.plane import padded
from slmops.report.svg import CHARACTER, Drawing, both
from slmops.report.templates import templates
from slmops.report.words import figure_name, shown, three

PAGE, RECORD = "tune.html", "tune.json"


def write_page(out: Path, found: Mapping[str, Any]) -> Path:
    """Write `tune.html` and `tune.json` to `out`; returns the page.

    Args:
        found: see `slmops.tune.outcome.outcome`.
    """
    html = (
        templates()
        .get_template("tuned.html")
        .render(
            found=found,
            names=names_of(found),
            rows=list(_rows(found)),
            history=history(found),
            importance=importance(found),
            gain=_gain(found),
        )
    )
    for name, text in ((RECORD, json.dumps(found, indent=2, ensure_ascii=False) + "\n"), (PAGE, html)):
        part = out / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(out / name)
    return out / PAGE


def names_of(found: Mapping[str, Any]) -> list[str]:
    """The settings that were searched."""
    return list(dict.fromkeys(name for one in found["trials"] for name in one["values"]))


def setting(value: Any) -> str:
    """A value as a recipe has it, short."""
    if isinstance(value, float):
        return three(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool | None) else str(value)


def history(found: Mapping[str, Any]) -> str | None:
    """The value of each trial as a dot, and the best so far as a line; None where fewer than two were measured."""
    done = [one for one in found["trials"] if one["state"] == "measured"]
    return both(lambda width: _history(found, done, width)) if len(done) > 1 else None


def _history(found: Mapping[str, Any], done: Sequence[Mapping[str, Any]], width: float) -> str:
    drawing = Drawing(width, 320 if width > 500 else 280, top=30)
    figure, better = found["figure"], max if found["maximise"] else min
    x = drawing.x_scale(0, max(max(one["number"] for one in found["trials"]), 1))
    y = drawing.y_scale(*padded([one["value"] for one in done], figure if found["maximise"] else "perplexity"))
    drawing.y_axis(y, f"{figure_name(figure)} on the validation rows")
    drawing.x_axis(x, "trial", lambda v: f"{v:.0f}")
    best, line = done[0]["value"], []
    for one in done:
        line += [(x(one["number"]), y(best)), (x(one["number"]), y(best := better(best, one["value"])))]
    drawing.path([*line, (width - drawing.right, y(best))], "curve c5")
    for one in done:
        drawing.dot(x(one["number"]), y(one["value"]), 4, f"heart {'c4' if one['written'] else 'quiet'}")
    if found["written"]:
        drawing.line(drawing.left, y(found["written"]["value"]), width - 14, y(found["written"]["value"]), "across c4")
    return drawing.svg(
        f"{figure_name(figure)} of {len(done)} trials: the best is {three(found['best']['value'])}, of trial "
        f"{found['best']['number']}."
    )


def importance(found: Mapping[str, Any]) -> str | None:
    """How much of the difference between trials each setting explains, as bars; None where nothing is known."""
    return both(lambda width: _importance(found["importance"], width)) if found["importance"] else None


def _importance(shares: Mapping[str, float], width: float) -> str:
    longest = max(map(len, shares)) * CHARACTER + 16
    drawing = Drawing(width, 34 * len(shares) + 44, left=min(longest, width / 2), right=60, top=6)
    x = drawing.x_scale(0, max(shares.values()) or 1)
    for number, (name, share) in enumerate(shares.items()):
        at = drawing.top + 34 * number + 17
        drawing.text(drawing.left - 10, at + 4, name, "tick", "end")
        drawing.path([(x(0), at - 8), (x(share), at - 8), (x(share), at + 8), (x(0), at + 8), (x(0), at - 8)], "dot c5")
        drawing.text(x(share) + 8, at + 4, f"{share:.0%}", "name")
    drawing.x_axis(x, "share of the differences", lambda v: f"{v:.0%}")
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return drawing.svg(f"How much each setting explains: {said}.")


def _rows(found: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """The trials, the best first, those without a value last."""
    sign = -1 if found["maximise"] else 1
    order = sorted(found["trials"], key=lambda one: (one["value"] is None, sign * (one["value"] or 0), one["number"]))
    return [
        one
        | {
            "said": "" if one["value"] is None else shown(found["figure"], one["value"]),
            "settings": [setting(one["values"][name]) if name in one["values"] else "" for name in names_of(found)],
        }
        for one in order
    ]


def _gain(found: Mapping[str, Any]) -> str | None:
    """What the best has more than the recipe as it is written."""
    best, written = found["best"], found["written"]
    if best is None or written is None:
        return None
    return f"{best['value'] - written['value']:+.3g}"
