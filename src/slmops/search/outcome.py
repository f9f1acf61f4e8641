"""What a search came to: verdicts on its candidates, and the front for people and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.evaluate.compare import compare, headline
from slmops.evaluate.gates import judge_gates
from slmops.recipe.evaluate import Gate
from slmops.recipe.search import Bound, SearchSettings
from slmops.search.choice import MEASURE, Candidate, on_front
from slmops.tasks.base import Row, Task


def judge(
    task: Task,
    rows: Sequence[Row],
    scored: Mapping[str, Path],
    found: Sequence[Candidate],
    search: SearchSettings,
    seed: int,
) -> None:
    """Give every candidate of `found` its figures and verdicts.

    Args:
        scored: by `student` and the candidates' names, the folders of their answers to `rows`.
    """
    bounds = search.subject_to or {headline(task).name: Bound()}
    gates = {figure: [Gate(max_drop=bound.max_drop, of="student")] for figure, bound in bounds.items()}
    evidence = compare(task, rows, scored, seed=seed, ours=found[0].name, reference="student")
    for one in found:
        one.figures = evidence["models"][one.name]
        one.verdicts = judge_gates(evidence, gates, role=one.name)


def outcome(
    tried: Sequence[Candidate], ships: Candidate, search: SearchSettings, evidence: Mapping[str, Any]
) -> dict[str, Any]:
    """`front.json`: `figure` (the task's main one), what was asked for, `rows`, the `student`'s own quality, what
    `ships` and whether that is `proven`; `candidates` that answered all rows, with costs, quality, `drop` in points and
    its interval, `state`, and `front` and `shipped`; and `others` with what stood in their way.
    """
    figure = evidence["headline"]
    measured = [one for one in tried if one.state == "measured"]
    front = {one.name for one in on_front(measured, figure, search.minimise)}
    return {
        "figure": figure,
        "search": search.model_dump(mode="json"),
        "rows": evidence["n_test"],
        "student": evidence["models"]["student"]["quality"][figure],
        "ships": ships.name,
        "proven": ships.proven,
        "candidates": [
            _measured(one, figure) | {"front": one.name in front, "shipped": one is ships} for one in measured
        ],
        "others": [_other(one) for one in tried if one.state != "measured"],
    }


def _measured(one: Candidate, figure: str) -> dict[str, Any]:
    verdict = max(one.verdicts, key=lambda verdict: verdict["state"] != "pass")
    return {
        "name": one.name,
        "quality": one.figures["quality"][figure],
        "interval": one.figures["interval"][figure],
        **{measure: one.figures[measure] for measure in MEASURE.values()},
        "loss": one.screen["loss"],
        "drop": verdict["value"],
        "drop_interval": verdict.get("interval"),
        "state": verdict["state"],
        "rows_enough": verdict.get("rows_enough"),
        "message": verdict["message"],
    }


def _other(one: Candidate) -> dict[str, Any]:
    return {"name": one.name, "state": one.state, "why": one.why, **one.screen}
