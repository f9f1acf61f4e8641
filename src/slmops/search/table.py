"""A search as plain text, on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from slmops.console import WIDTH, fit

_NAME = 22
_WIDTHS = (7, 17, 8, 8, 8)
STATES = {"pass": "within the bound", "fail": "not within it", "not enough evidence": "too few rows to tell"}


def front_table(found: Mapping[str, Any]) -> str:
    """The candidates that answered all rows, best first, those that did not with the reason, and what ships.

    Args:
        found: `front.json`.
    """
    return "\n".join([*_measured(found), "", *_others(found), *_answer(found)]) + "\n"


def _measured(found: Mapping[str, Any]) -> Iterator[str]:
    figure = found["figure"].replace("_", " ")
    yield _line(f"{found['rows']:,} rows", fit(figure, 11), "drop, points", "ms", "MB", "RAM MB")
    yield "─" * WIDTH
    yield _line("  as trained", f"{found['student']:.3f}", "", "", "", "")
    for one in sorted(found["candidates"], key=lambda one: (not one["front"], -one["quality"])):
        ends = one["drop_interval"]
        # No drop is no drop, on whichever side of nothing it lies.
        drop = "" if one["drop"] is None else f"{round(one['drop'], 1) + 0.0:+.1f}"
        drop += f" ({ends[0]:+.1f} {ends[1]:+.1f})" if ends else ""
        mark = ">" if one["shipped"] else "*" if one["front"] else " "
        costs = (_short(one["latency_p50_ms"]), *(_short(one[name] / 1e6) for name in ("weights_bytes", _RAM)))
        yield _line(f"{mark} {_called(one['name'])}", f"{one['quality']:.3f}", drop, *costs)


_RAM = "peak_rss_bytes"


def _others(found: Mapping[str, Any]) -> Iterator[str]:
    for one in found["others"]:
        why = one["why"] or f"loss {one['loss']:.3f}, {_short(one['weights_bytes'] / 1e6)} MB: another is better"
        yield fit(f"  {_called(one['name']):<{_NAME - 2}}{one['state']}: {why}", WIDTH)
    if found["others"]:
        yield ""


def _answer(found: Mapping[str, Any]) -> Iterator[str]:
    (ships,) = (one for one in found["candidates"] if one["shipped"])
    yield f"> {ships['name']}: {STATES[ships['state']]}"
    yield from wrap(ships["message"], WIDTH, initial_indent="  ", subsequent_indent="  ")
    yield "* no other one is better in quality and in cost"


def _called(name: str) -> str:
    """A name that is too long with its middle left out: candidates differ at both ends."""
    room = _NAME - 3
    return name if len(name) <= room else f"{name[: room - room // 2 - 1]}…{name[-(room // 2) :]}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _line(label: str, *cells: str) -> str:
    body = "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
    return f"{fit(label, _NAME - 1):<{_NAME}}{body}".rstrip()
