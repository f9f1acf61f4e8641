"""The templates of a page, and what they may call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slmops.console import duration, size
from slmops.report.verdict import why
from slmops.report.words import figure_name, full, p_value, percent, points, prose, shown, three, visible

if TYPE_CHECKING:
    import jinja2


def templates() -> jinja2.Environment:
    """Those in `html/`; every text that they show is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("slmops.report", "html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {
        "figure": figure_name,
        "why": why,
        "full": full,
        "points": points,
        "p": p_value,
        "percent": percent,
        "duration": duration,
        "prose": prose,
        "size": size,
        "shown": lambda value, name: shown(name, value),
        "three": three,
    }
    return environment
