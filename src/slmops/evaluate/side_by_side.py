"""Models, bundles and endpoints side by side on the same rows, without a recipe."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.data.check import check_classes
from slmops.data.read import write_jsonl
from slmops.endpoints.answers import Answers
from slmops.errors import BadInput, SlmopsError
from slmops.evaluate.asking import Asking, answers_of, figures_of, gate_of
from slmops.evaluate.compare import compare
from slmops.evaluate.cost import running_cost
from slmops.evaluate.predictions import check_rows
from slmops.evaluate.subjects import FLOOR, Local, Subject
from slmops.privacy.audit import Gate
from slmops.progress import Progress
from slmops.recipe.evaluate import Price, Running
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
    running: Running,
    prices: Mapping[str, Price],
    home: Path,
    seed: int,
    progress: Progress,
) -> Outcome:
    """Ask every subject, and compare them; the first is what the others are held against.

    Args:
        rows: with references; at least one.
        train: rows that the trivial floor is fitted on; without any there is no floor.
        running: what this machine costs.
        prices: by subject, of answers that are bought.
        home: answers are kept in `answers.db` there, and not asked for again; what left is in `kept/egress.jsonl`.

    Raises:
        BadInput: there are no rows, or a subject cannot be asked at all.
        SlmopsError: no row was answered by all subjects.
    """
    check_rows(task, rows)
    check_classes(rows, task)
    gates = {subject.name: gate_of(subject, asking, home / "kept") for subject in subjects}
    kept = Answers(home / "answers.db")
    try:
        found, problem = _ask_all(subjects, task, rows, asking, kept, gates, progress)
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
            try:
                evidence = side_by_side(task, chosen, scored, answers, seed=seed)
            except BadInput as error:
                # Too few rows to judge by: what stopped the others is what is to be mended.
                raise problem or error from error
    finally:
        kept.close()
    for subject in subjects:
        figures, price = evidence["models"][subject.name], prices.get(subject.name)
        # A machine's price says nothing of what runs elsewhere.
        here = running if isinstance(subject, Local) else running.model_copy(update={"machine_usd_per_hour": None})
        figures |= running_cost(figures, here, price)
    if problem:
        evidence |= {"partial": True, "n_rows": len(rows)}
    return Outcome(evidence, answers, problem)


def _ask_all(
    subjects: Sequence[Subject],
    task: Task,
    rows: Sequence[Row],
    asking: Asking,
    kept: Answers,
    gates: Mapping[str, Gate | None],
    progress: Progress,
) -> tuple[dict[str, dict[int, dict[str, Any]]], SlmopsError | None]:
    """Per subject its answers by row number, and the first problem. A subject that fails does not stop the others."""
    found, first = {}, None
    for subject in subjects:
        gate = gates[subject.name]
        found[subject.name], problem = answers_of(subject, task, rows, asking, kept, progress, gate=gate)
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
    task: Task,
    rows: Sequence[Row],
    scored: Mapping[str, Path],
    answers: Mapping[str, Sequence[Row]],
    *,
    seed: int,
) -> dict[str, Any]:
    """The evidence of `compare`, the second subject being held against the first; `reference` names that.

    `same_text` is the share of rows to which both wrote the same text. With more subjects `others` says of each of them
    what `kept`, `kept_interval`, `savings` and `same_text` say of the second.
    """
    reference, *others = answers
    found = {
        name: compare(task, rows, scored, seed=seed, ours=name, reference=reference)
        | {"same_text": _same_text(answers[name], answers[reference])}
        for name in others or [reference]
    }
    first, *more = found
    evidence = found[first]
    if not others:
        return evidence | {"kept": {}, "kept_interval": {}, "savings": {}, "same_text": None, "others": {}}
    parts = ("kept", "kept_interval", "savings", "same_text")
    return evidence | {"others": {name: {part: found[name][part] for part in parts} for name in more}}


def _same_text(ours: Sequence[Row], reference: Sequence[Row]) -> float:
    same = [a["text"] == b["text"] for a, b in zip(ours, reference, strict=True)]
    return same.count(True) / len(same)


def write_outcome(out: Path, outcome: Outcome) -> None:
    """Write `evidence.json` and the answers of each subject."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "answers", ignore_errors=True)
    (out / "answers").mkdir()
    for name, answers in outcome.answers.items():
        write_jsonl(out / "answers" / f"{name}.jsonl", answers)
    part = out / "evidence.json.part"
    part.write_text(json.dumps(outcome.evidence, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(out / "evidence.json")
