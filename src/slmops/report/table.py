"""The comparison as a table of plain text that fits a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slmops.console import WIDTH, fit
from slmops.report.costs import measured
from slmops.report.pairs import difference
from slmops.report.verdict import judge, reference_of
from slmops.report.words import figure_name, in_order, p_value, percent, points, shown, subtitle, three, title

LABEL_WIDTH = 18
CELL_WIDTH = 10
PER_BLOCK = 6
"""Models beside each other; more than that stand in several blocks."""

_COMPARED = (("student", "base"), ("student", "baseline"), ("shipped", "baseline"), ("shipped", "floor"))
"""What must beat what for tuning, a teacher, and a model at all, to be worth their while; student and baseline learned
alike and are both as they were trained."""


def table(
    evidence: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]], parity: Mapping[str, Any] | None = None
) -> str:
    """The models side by side, then what was kept and saved, the tests, parity, the gates and the verdict."""
    roles = in_order(evidence["models"])
    blocks = [roles[start : start + PER_BLOCK] for start in range(0, len(roles), PER_BLOCK)]
    lines = [text for block in blocks for text in (*_block(evidence, block), "")]
    subject = judge(evidence, verdicts, parity)
    below = [
        f"n = {evidence['n_test']:,} held-out rows; [ ] are 95 % intervals",
        *_kept(evidence),
        *_saved(evidence),
        *_paired(evidence, subject.subject),
        *_parity(parity),
        *(f"gate {verdict['state']}: {verdict['message']}" for verdict in verdicts),
        subject.line(),
    ]
    return "\n".join([*lines, *(part for text in below for part in wrapped(text))]) + "\n"


def _block(evidence: Mapping[str, Any], roles: Sequence[str]) -> Iterator[str]:
    models = {role: evidence["models"][role] for role in roles}
    rule = "─" * (LABEL_WIDTH + CELL_WIDTH * len(roles))
    yield line("", [title(role) for role in roles])
    yield line("", [subtitle(role, model) for role, model in models.items()])
    yield rule
    yield from _quality(evidence, models)
    if costs := measured(models, main_only=True):
        yield rule
        for cost in costs:
            label = f"{cost.label} {cost.unit}".strip()
            yield line(label, [cost.text(model) or "–" for model in models.values()])


def _quality(evidence: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The headline with its interval, then the task's other figures."""
    headline = evidence["headline"]
    for name in dict.fromkeys([headline, *(name for m in models.values() for name in m.get("quality", {}))]):
        values = [model.get("quality", {}).get(name) for model in models.values()]
        yield line(figure_name(name), ["–" if value is None else shown(name, value) for value in values])
        if name == headline:
            yield line("  95 % interval", [interval(model.get("interval", {}).get(name)) for model in models.values()])


def interval(ends: Sequence[float] | None) -> str:
    """An interval in a cell: `0.81–0.89`."""
    if ends is None:
        return "–"
    digits = 2 if max(ends) < 10 else 1 if max(ends) < 100 else 0
    return "–".join(f"{end:.{digits}f}" for end in ends)


def line(label: str, cells: Sequence[str]) -> str:
    """A line of the table: what is too long is cut."""
    fitted = (f"{fit(cell, CELL_WIDTH - 1):>{CELL_WIDTH}}" for cell in cells)
    return f"{fit(label, LABEL_WIDTH - 1):<{LABEL_WIDTH}}" + "".join(fitted)


def wrapped(text: str) -> list[str]:
    """A sentence in the width of a terminal."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False) or [""]


def _kept(evidence: Mapping[str, Any]) -> Iterator[str]:
    for role, kept in _by_model(evidence["kept"]).items():
        for name, value in kept.items():
            if value is None:
                continue
            intervals = _by_model(evidence["kept_interval"]).get(role, {})
            between = (
                f" [{percent(intervals[name][0])} to {percent(intervals[name][1])}]" if intervals.get(name) else ""
            )
            yield f"{_whose(role)}{figure_name(name)}: {percent(value)} of {_teacher(evidence, role)}{between}"


def _saved(evidence: Mapping[str, Any]) -> Iterator[str]:
    labels = {
        "time_saving_torch": "time saved against the teacher in PyTorch",
        "time_saving_same_engine": "time saved against the quantised teacher, same engine",
        "time_saving": "time saved",
        "weights_saving": "weights saved",
        "memory_saving": "memory saved",
    }
    for role, savings in _by_model(evidence["savings"]).items():
        for name, value in savings.items():
            if value is not None:
                yield f"{_whose(role)}{labels.get(name, figure_name(name))}: {percent(value)}"
    same = evidence["same_text"]
    for role, value in (same if isinstance(same, Mapping) else {"": same}).items():
        if value is not None:
            of = f"{role}, same text as the reference" if role else "same text as the student before quantising"
            yield f"{of}: {percent(value)}"


def _parity(parity: Mapping[str, Any] | None) -> Iterator[str]:
    """The bundle against its student: in one line where all is well, else what is not."""
    if parity is None:
        return
    if measured := parity["measured"]:
        what = "labels" if parity["labels"] else "tokens"
        yield (
            f"the bundle chooses {percent(measured['agreement'])} of the student's {what} on {parity['rows']} rows, "
            f"{three(measured['token_kl_nats'])} nats apart"
        )
    for gate in parity["gates"]:
        if gate["state"] != "pass":
            yield f"gate {gate['state']}: {gate['message']}"


def _by_model(figures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Figures by the model they are about; in a recipe's run that is the shipped one, and it goes without saying."""
    if any(isinstance(value, Mapping) for value in figures.values()):
        return dict(figures)
    return {"": figures}


def _whose(role: str) -> str:
    return f"{role}, " if role else ""


def _teacher(evidence: Mapping[str, Any], role: str) -> str:
    if not role or "teacher" in evidence["models"]:
        return "the teacher's"
    return f"{reference_of(evidence, role)}'s"


def _paired(evidence: Mapping[str, Any], subject: str) -> Iterator[str]:
    """The models of a run against what they must beat; a freely named one against all others."""
    headline = evidence["headline"]
    pairs = _COMPARED if subject == "shipped" else [(subject, rival) for rival in in_order(evidence["models"])]
    for ours, rival in pairs:
        if test := difference(evidence, ours, rival, headline):
            yield (
                f"{title(ours)} against {title(rival)}: {points(test.points)} points of {figure_name(headline)} "
                f"[{points(test.low)} to {points(test.high)}], {p_value(test.p)}: {test.reading}"
            )
