"""What was learned against what was bought, where rows were chosen in rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slmops.report.plane import padded
from slmops.report.svg import Drawing, both
from slmops.report.words import ROLES, figure_name, shown, slot

_ENDED = {
    "flat": "further rows taught nothing more",
    "rounds": "the rounds were over",
    "pool": "there were no more rows",
    "budget": "the budget had no room for another request",
}
_CHOSEN = {
    "uncertainty": "The rows of a round were those of which the student of the round before was least sure",
    "random": "The rows of every round were drawn by chance",
}


def curve(bought: Mapping[str, Any]) -> str:
    """The task's main figure on the validation rows against the rows that the teacher was asked; a dot is a round."""
    return both(lambda width: _curve(bought, width))


def told(bought: Mapping[str, Any]) -> str:
    """The same in sentences."""
    asked, rounds = bought["points"][-1]["asked"], len(bought["points"])
    return (
        f"The teacher was asked for {asked:,} of the pool’s {bought['pool']:,} rows, in {rounds} rounds, "
        f"until {_ENDED[bought['ended']]}; {bought['unbought']:,} were not bought. {_CHOSEN[bought['by']]}."
    )


def _curve(bought: Mapping[str, Any], width: float) -> str:
    name, points = bought["figure"], bought["points"]
    drawing = Drawing(width, 280 if width > 500 else 240, top=30)
    x = drawing.x_scale(0, max(point["asked"] for point in points))
    y = drawing.y_scale(*padded([point["value"] for point in points]))
    drawing.y_axis(y, f"{figure_name(name)} on {bought['validation_rows']:,} validation rows", lambda v: f"{v:.3g}")
    drawing.x_axis(x, "rows bought", lambda v: f"{v:,.0f}")
    at = [(x(point["asked"]), y(point["value"])) for point in points]
    kind = f"c{slot('student', ROLES)}"
    drawing.path(at, f"curve {kind}")
    for place in at:
        drawing.dot(*place, 3.5, f"dot {kind}")
    said = "; ".join(f"{shown(name, point['value'])} with {point['asked']:,} rows" for point in points)
    return drawing.svg(f"{figure_name(name)} on the validation rows against rows bought: {said}.")
