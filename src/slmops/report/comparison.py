"""The comparison as rows and columns, ready to be written as a table of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slmops.report.costs import COSTS, Cost, measured
from slmops.report.words import change, figure_name, full, in_order, lower_is_better, shown, slot, subtitle, three


@dataclass(frozen=True)
class Column:
    role: str
    title: str
    subtitle: str
    slot: int


@dataclass(frozen=True)
class Cell:
    """A figure, what stands small below it, how far it moved over repeats, and whether no other model's is better."""

    value: str
    note: str = ""
    spread: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    label: str
    unit: str
    cells: tuple[Cell, ...]
    main: bool = False


def order(evidence: Mapping[str, Any], subject: str, reference: str | None) -> list[str]:
    """The model that it is about, then what it is compared with: on a phone the other columns are out of sight."""
    first = [role for role in (subject, reference) if role]
    return [*first, *(role for role in in_order(evidence["models"]) if role not in first)]


def columns(evidence: Mapping[str, Any], roles: Sequence[str]) -> list[Column]:
    models = evidence["models"]
    subtitles = {"teacher_same": "same engine as shipped", "baseline": "student without a teacher"}
    return [Column(r, full(r), subtitles.get(r) or subtitle(r, models[r]), slot(r, in_order(models))) for r in roles]


def quality(evidence: Mapping[str, Any], roles: Sequence[str]) -> list[Line]:
    """Every figure that a model has, the headline first, each with its interval."""
    models = [evidence["models"][role] for role in roles]
    headline = evidence["headline"]
    names = dict.fromkeys([headline, *(name for model in models for name in model.get("quality", {}))])
    return [_quality_line(name, models, main=name == headline) for name in names]


def cost(evidence: Mapping[str, Any], roles: Sequence[str], reference: str | None, *, main_only: bool) -> list[Line]:
    """Measured figures; below each, how it stands against the reference."""
    models = {role: evidence["models"][role] for role in roles}
    base = models.get(reference or "")
    return [_cost_line(one, list(models.values()), base) for one in measured(models, main_only=main_only)]


def _quality_line(name: str, models: Sequence[Mapping[str, Any]], *, main: bool) -> Line:
    values = [model.get("quality", {}).get(name) for model in models]
    known = [value for value in values if value is not None]
    best = (min if lower_is_better(name) else max)(known, default=None)
    cells = [
        Cell("–") if value is None else Cell(shown(name, value), _interval(name, model), best=value == best)
        for value, model in zip(values, models, strict=True)
    ]
    return Line(figure_name(name), "", tuple(cells), main)


def _interval(name: str, model: Mapping[str, Any]) -> str:
    ends = model.get("interval", {}).get(name)
    return "" if ends is None else "–".join(shown(name, end) for end in ends)


def _cost_line(one: Cost, models: Sequence[Mapping[str, Any]], base: Mapping[str, Any] | None) -> Line:
    values = [one.value(model) for model in models]
    known = [value for value in values if value is not None]
    choose = {True: max, False: min}.get(one.more_is_better) if one.more_is_better is not None else None
    best = choose(known) if choose else None
    cells = [
        Cell("–")
        if value is None
        else Cell(three(value), _against(one, value, base, model), _spread(one, model), value == best)
        for value, model in zip(values, models, strict=True)
    ]
    return Line(one.label, one.unit, tuple(cells))


def _spread(one: Cost, model: Mapping[str, Any]) -> str:
    ends = model.get("latency_spread_ms") if one.key == "latency_p50_ms" else None
    return "–".join(three(end) for end in ends) if ends else ""


def _against(one: Cost, value: float, base: Mapping[str, Any] | None, model: Mapping[str, Any]) -> str:
    theirs = one.value(base) if base is not None and base is not model else None
    if not theirs or one.more_is_better is None:
        return ""
    return change(value / theirs - 1) if value / theirs < 10 else f"× {three(value / theirs)}"


def energy_notes(evidence: Mapping[str, Any]) -> list[str]:
    """How energy was come by, each way once, with the models it holds for."""
    ways: dict[str, list[str]] = {}
    for role in in_order(evidence["models"]):
        if method := evidence["models"][role].get("energy_method"):
            ways.setdefault(method, []).append(full(role))
    return [f"{method} ({', '.join(roles)})" for method, roles in ways.items()]


def has_any(evidence: Mapping[str, Any]) -> bool:
    """Whether anything about cost was measured at all."""
    return any(one.value(model) is not None for one in COSTS for model in evidence["models"].values())
