"""Models, bundles and endpoints side by side on the same rows, without a recipe."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.data.read import write_jsonl
from slmops.errors import BadInput, SlmopsError
from slmops.evaluate.answers import Answers
from slmops.evaluate.asking import Asking, answers_of, figures_of
from slmops.evaluate.compare import compare
from slmops.evaluate.subjects import FLOOR, Subject
from slmops.progress import Progress
from slmops.tasks import Row, Task


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found.

    Attributes:
        evidence: see `compare`; `partial` where an endpoint failed before it had answered all rows, with `n_rows`,
            how many were to be answered.
        answers: per subject, its answers to the rows that all have answered.
        problem: why the evidence is partial.
    """

    evidence: dict[str, Any]
    answers: Mapping[str, Sequence[Row]]
    problem: SlmopsError | None


def evaluate(
    subjects: Sequence[Subject],
    task: Task,
    rows: Sequence[Row],
    train: Sequence[Row],
    asking: Asking,
    *,
    home: Path,
    seed: int,
    progress: Progress,
) -> Outcome:
    """Ask every subject, and compare them; the first is what the others are held against.

    Args:
        rows: with references; at least one.
        train: rows that the trivial floor is fitted on; without any there is no floor.
        home: answers are kept in `answers.db` there, and not asked for again.

    Raises:
        BadInput: there are no rows, or a subject cannot be asked at all.
        SlmopsError: no row was answered by all subjects.
    """
    if not rows:
        raise BadInput("there are no rows to evaluate on")
    kept = Answers(home / "answers.db")
    try:
        found, problem = _ask_all(subjects, task, rows, asking, kept, progress)
        common = [number for number in range(len(rows)) if all(number in answers for answers in found.values())]
        if not common:
            raise problem or SlmopsError("no row was answered")
        chosen = [rows[number] for number in common]
        answers = {name: [_line(rows[n], by_row[n]) for n in common] for name, by_row in found.items()}
        with tempfile.TemporaryDirectory(prefix="slmops-evaluate-") as work:
            scored = {}
            for subject in subjects:
                figures = figures_of(subject, task, chosen, list(found[subject.name].values()), asking, kept, progress)
                scored[subject.name] = _scored(Path(work, subject.name), answers[subject.name], figures)
            if train:
                scored[FLOOR] = _floor(Path(work, FLOOR), task, chosen, train)
            evidence = side_by_side(task, chosen, scored, [subject.name for subject in subjects], seed=seed)
    finally:
        kept.close()
    if problem:
        evidence |= {"partial": True, "n_rows": len(rows)}
    return Outcome(evidence, answers, problem)


def _ask_all(
    subjects: Sequence[Subject],
    task: Task,
    rows: Sequence[Row],
    asking: Asking,
    kept: Answers,
    progress: Progress,
) -> tuple[dict[str, dict[int, dict[str, Any]]], SlmopsError | None]:
    """Per subject its answers by row number, and the first problem. A subject that fails does not stop the others."""
    found, first = {}, None
    for subject in subjects:
        found[subject.name], problem = answers_of(subject, task, rows, asking, kept, progress)
        first = first or problem
    return found, first


def _line(row: Row, record: Mapping[str, Any]) -> Row:
    return {"id": row["id"], **{name: record[name] for name in ("text", "probabilities") if name in record}}


def _scored(folder: Path, answers: Sequence[Row], figures: Mapping[str, Any]) -> Path:
    """A folder as scoring leaves it."""
    folder.mkdir()
    write_jsonl(folder / "predictions.jsonl", answers)
    (folder / "probe.json").write_text(json.dumps(figures), encoding="utf-8")
    return folder


def _floor(folder: Path, task: Task, rows: Sequence[Row], train: Sequence[Row]) -> Path:
    answers = task.floor(train, [row["input"] for row in rows])
    lines = [{"id": row["id"], "text": task.write(answer)} for row, answer in zip(rows, answers, strict=True)]
    return _scored(folder, lines, {"engine": "scikit-learn"})


def side_by_side(
    task: Task, rows: Sequence[Row], scored: Mapping[str, Path], names: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """The evidence of `compare`, the second subject being held against the first.

    With more subjects `others` says of each of them what `kept`, `kept_interval` and `savings` say of the second.
    """
    reference, others = names[0], names[1:]
    ours = others[0] if others else reference
    evidence = _second_format(compare(task, rows, scored, seed=seed, ours=ours, reference=reference), ours)
    if not others:
        evidence |= {"kept": {}, "kept_interval": {}, "savings": {}}
    parts = ("kept", "kept_interval", "savings")
    evidence["reference"] = reference
    evidence["others"] = {
        name: {part: against[part] for part in parts}
        for name in others[1:]
        for against in [compare(task, rows, scored, seed=seed, ours=name, reference=reference)]
    }
    return evidence


def _second_format(evidence: dict[str, Any], ours: str) -> dict[str, Any]:
    """Evidence with the main figure named, intervals by figure and one record per pair and figure."""
    evidence = {"headline": "exact_match", **evidence}
    for model in evidence["models"].values():
        if isinstance(model.get("interval"), list):
            model["interval"] = {evidence["headline"]: model["interval"]}
    if evidence.get("format") == 2:
        return evidence
    pairs = [
        {"ours": ours, "theirs": test["rival"], "figure": figure, **found}
        for test in evidence["paired"]
        for figure, found in test.items()
        if figure != "rival"
    ]
    # Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    largest, held = 0.0, sorted(pairs, key=lambda pair: pair["p"])
    for place, pair in enumerate(held):
        largest = max(largest, min(1.0, pair["p"] * (len(held) - place)))
        pair["p_adjusted"] = largest
    return {**evidence, "format": 2, "paired": pairs}


def write_outcome(out: Path, outcome: Outcome, about: Mapping[str, Any]) -> None:
    """Write `evidence.json`, `report.json` (the evidence with what was compared) and the answers of each subject."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "answers", ignore_errors=True)
    (out / "answers").mkdir()
    for name, answers in outcome.answers.items():
        write_jsonl(out / "answers" / f"{name}.jsonl", answers)
    for name, content in (
        ("evidence.json", outcome.evidence),
        ("report.json", {"format": 1, **about, "evidence": outcome.evidence}),
    ):
        part = out / f"{name}.part"
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(out / name)
