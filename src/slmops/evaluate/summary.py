"""An evaluation as Markdown, short enough for the summary page of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slmops.console import size
from slmops.evaluate.evidence import interval_of

MOST_ROWS = 20
"""Failing regression rows that are shown; a summary of GitHub holds 1 MiB."""

_WIDTH = 200
_MARKS = {"pass": "✅ pass", "fail": "❌ fail", "not enough evidence": "⚠️ not enough evidence"}
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")


def summary(
    evidence: Mapping[str, Any],
    verdicts: Sequence[Mapping[str, Any]],
    regression: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The verdict, the gates, the models side by side, the regression suite and what a judge said."""
    parts = [
        f"## {_verdict(verdicts)}",
        "\n".join(_gates(verdicts)),
        "\n".join(_models(evidence)),
        "\n".join(_regression(regression)),
        "\n".join(_judged(evidence.get("judged"))),
        "More in `report.html` and `evidence.json` of this run.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(verdicts: Sequence[Mapping[str, Any]]) -> str:
    if not verdicts:
        return "No gate was set"
    states = [verdict["state"] for verdict in verdicts]
    failed, unclear = states.count("fail"), states.count("not enough evidence")
    if not failed and not unclear:
        return f"✅ Every gate passes ({len(states)})"
    counts = [f"{failed} of {len(states)} gates fail"] if failed else []
    counts += [f"{unclear} of {len(states)} have not enough evidence"] if unclear else []
    return "❌ Do not ship: " + ", ".join(counts)


def _gates(verdicts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if verdicts:
        yield "| gate | wanted | state | why |\n| --- | --- | --- | --- |"
    for verdict in verdicts:
        why = verdict["message"].removeprefix(f"{verdict['figure']}: ")
        yield _line(f"`{verdict['figure']}`", _text(verdict["wanted"]), _MARKS[verdict["state"]], _text(why))


def _models(evidence: Mapping[str, Any]) -> Iterator[str]:
    models: Mapping[str, Mapping[str, Any]] = evidence["models"]
    names = list(dict.fromkeys(name for model in models.values() for name in model.get("quality", {})))
    yield f"{evidence['n_test']} test rows; 95 % intervals in brackets.\n"
    yield _line("", *(_text(role) for role in models))
    yield _line("---", *("---:" for _ in models))
    for name in names:
        yield _line(f"`{name}`", *(_quality(model, name) for model in models.values()))
    for label, name in (("latency p50 ms", "latency_p50_ms"), ("latency p95 ms", "latency_p95_ms")):
        yield _line(label, *(f"{model[name]:.1f}" if name in model else "–" for model in models.values()))
    for label, name in (("weights", "weights_bytes"), ("peak memory", "peak_rss_bytes")):
        yield _line(label, *(size(model[name]) if name in model else "–" for model in models.values()))


def _quality(model: Mapping[str, Any], name: str) -> str:
    value = model.get("quality", {}).get(name)
    if value is None:
        return "–"
    ends = interval_of(model, name)
    return f"{value:.3f}" + (f" ({ends[0]:.3f}–{ends[1]:.3f})" if ends else "")


def _regression(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    failed = [row for row in rows if not row["passed"]]
    yield f"### Regression suite: {len(rows) - len(failed)} of {len(rows)} rows pass"
    if failed:
        yield "\n| row | asked | wanted | written | note |\n| --- | --- | --- | --- | --- |"
    for row in failed[:MOST_ROWS]:
        yield _line(*(_text(row.get(name) or "") for name in ("id", "input", "wanted", "written", "note")))
    if len(failed) > MOST_ROWS:
        yield f"\nand {len(failed) - MOST_ROWS} more in `regression.json`."


def _judged(judged: Mapping[str, Any] | None) -> Iterator[str]:
    if not judged:
        return
    yield f"### Judged by {_text(judged['judge'])}: an opinion, not a measurement"
    if not judged["reliable"]:
        yield f"\nNot to be relied on: {_text(judged['why'])}."
    yield f"\nshipped against {_text(judged['against'])}, {judged['readable']} of {judged['rows']} rows readable\n"
    yield "| figure | value | 95 % interval |\n| --- | ---: | --- |"
    for name, value in judged["figures"].items():
        yield _line(f"`judged.{name}`", "–" if value is None else f"{value:.3f}", _ends(judged["interval"].get(name)))
    agreement = judged["agreement"]
    if agreement["share"] is not None:
        label = f"agrees with itself ({_text(agreement['how'])}, n = {agreement['rows']})"
        yield _line(label, f"{agreement['share']:.3f}", _ends(agreement["interval"]))


def _ends(ends: Sequence[float] | None) -> str:
    return "–" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """Any text as one cell: on one line, cut, and with nothing in it that Markdown or HTML would act on."""
    shown = " ".join(text.split())
    shown = shown if len(shown) <= _WIDTH else shown[: _WIDTH - 1] + "…"
    return _SPECIAL.sub(r"\\\1", shown)
