"""The pool is bought in rounds, where it teaches most, as a stage of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from slmops.data.read import read_jsonl
from slmops.errors import BadInput, BudgetReached
from slmops.pipeline.files import files_below
from slmops.pipeline.stage import Asks, Context
from slmops.recipe.selecting import Select
from slmops.select.curve import Ended, Point, flat
from slmops.select.rounds import STAGES, Rounds, SelectSettings
from slmops.teach.answers import load_answers

CURVE = "curve.json"


class SelectAnswers(Asks):
    """`data`, `rows` (the pool, written ones included) and what its steps read → answers as of `Teach`, `curve.json`.

    Inputs of steps are named after them: `teach:…` of the teacher's stage, `carve:…` and `learn:…` of the student's.
    Every round draws rows, has them answered, and trains and measures a student on all answers so far. It ends when the
    curve is flat, or rounds, rows or budget are used up; of a round that a budget cut short, what was bought is used.

    Raises:
        BadInput: the pool has no rows.
        BudgetReached: before anything was bought.
    """

    name: ClassVar[str] = "select"
    # What is asked for shapes the result as much as what is done here.
    version: ClassVar[int] = 1 + sum(stage.version for stage in STAGES)
    libraries: ClassVar[tuple[str, ...]] = tuple(sorted({name for stage in STAGES for name in stage.libraries}))

    def run(self, inputs: Mapping[str, Path], settings: SelectSettings, context: Context) -> Mapping[str, float | str]:
        rounds = Rounds(settings, inputs, context)
        if not rounds.pool:
            raise BadInput("the pool has no rows for the teacher to answer", hint="give texts of its own as data.pool")
        points, ended = _run(rounds, settings.select)
        unbought = rounds.pool - points[-1].asked
        context.progress.note(f"asked for {points[-1].asked:,} rows of {rounds.pool:,}: {_WHY[ended]}")
        answers = rounds.folders[rounds.answers]
        for name in files_below(answers):
            (context.out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(answers / name, context.out / name)
        told = {
            "by": settings.select.by,
            "figure": rounds.figure,
            "validation_rows": len(read_jsonl(inputs["data"] / "validation.jsonl")),
            "pool": rounds.pool,
            "unbought": unbought,
            "ended": ended,
            "points": [asdict(point) for point in points],
        }
        (context.out / CURVE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        reached = {f"{rounds.figure}_{point.asked}": point.value for point in points}
        return {**_counts(context.out), "rounds": len(points), "unbought": unbought, "ended": ended, **reached}


_WHY: Mapping[Ended, str] = {
    "flat": "further ones taught nothing more",
    "rounds": "the rounds are over",
    "pool": "there are no more",
    "budget": "the budget has no room for another request",
}


def _run(rounds: Rounds, select: Select) -> tuple[list[Point], Ended]:
    """Round after round, until there is a reason to end."""
    points: list[Point] = []
    for number in range(1 + select.rounds):
        if not rounds.draw(number):
            return points, "pool"
        try:
            rounds.buy()
        except BudgetReached:
            if rounds.settle():
                points.append(rounds.learn(number))
            if not points:
                raise
            return points, "budget"
        points.append(rounds.learn(number))
        if flat([point.value for point in points], select.patience, select.min_gain):
            return points, "flat"
    return points, "rounds"


def _counts(folder: Path) -> dict[str, float | str]:
    """The figures that the teacher's own stage gives of its answers."""
    answers, cost = load_answers(folder), folder / "cost.json"
    spent = json.loads(cost.read_text(encoding="utf-8")) if cost.exists() else {}
    return {
        "rows": len(answers),
        "dropped": len(read_jsonl(folder / "dropped.jsonl")),
        "answer_tokens": sum(len(answer.tokens) for answer in answers),
        **{name: value for name, value in spent.items() if value is not None},
    }
