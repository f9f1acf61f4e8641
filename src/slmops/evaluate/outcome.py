"""What the stage `evaluate` leaves: the evidence, and what its gates say of it. And all gates for CI systems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.evaluate.gates import judge_gates
from slmops.evaluate.junit import junit
from slmops.evaluate.regression import answered_again, counted
from slmops.evaluate.summary import summary
from slmops.recipe.evaluate import Gate
from slmops.tasks import Task

APART = frozenset({"data", "regression", "regression_answers", "judged"})
"""Inputs of the stage that are no models measured on the test rows."""


def regression_results(task: Task, inputs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What the shipped model answers to the regression suite; nothing where the recipe has none."""
    from slmops.data.read import read_jsonl

    if "regression" not in inputs:
        return []
    rows = read_jsonl(inputs["regression"] / "test.jsonl")
    return answered_again(task, rows, inputs["regression_answers"] / "predictions.jsonl")


def completed(
    evidence: Mapping[str, Any], regression: Sequence[Mapping[str, Any]], inputs: Mapping[str, Path]
) -> dict[str, Any]:
    """The evidence with `regression` (counts) and `judged` (without single verdicts), each where there is any."""
    whole = dict(evidence)
    if regression:
        whole["regression"] = counted(regression)
    if "judged" in inputs:
        judged = json.loads((inputs["judged"] / "judged.json").read_text(encoding="utf-8"))
        whole["judged"] = {name: value for name, value in judged.items() if name != "verdicts"}
    return whole


def write_outcome(
    out: Path,
    evidence: Mapping[str, Any],
    gates: Mapping[str, Sequence[Gate]],
    regression: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Write `evidence.json`, `gates.json` and `regression.json`; returns the verdicts.

    Raises:
        BadInput: see `judge_gates`.
    """
    verdicts = judge_gates(evidence, gates, role=evidence["ours"])
    for name, content in (("evidence", evidence), ("gates", verdicts), ("regression", regression)):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (out / f"{name}.json").write_text(text, encoding="utf-8")
    return verdicts


def write_for_ci(out: Path, evaluated: Path, more: Sequence[Mapping[str, Any]]) -> None:
    """Write `junit.xml` and `summary.md` of what `write_outcome` left in `evaluated`, with `more` verdicts behind."""
    evidence, gates, regression = (
        json.loads((evaluated / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("evidence", "gates", "regression")
    )
    verdicts = [*gates, *more]
    (out / "junit.xml").write_text(junit(verdicts, regression), encoding="utf-8")
    (out / "summary.md").write_text(summary(evidence, verdicts, regression), encoding="utf-8")
