"""What of the teachers' answers is learned from, as a stage of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from slmops.errors import SlmopsError
from slmops.pipeline.stage import Context
from slmops.recipe.curating import Curate
from slmops.recipe.data import ScreenSettings

if TYPE_CHECKING:
    from slmops.tasks import Row, Task
    from slmops.teach.answers import Answer
    from slmops.teach.curate import Found
    from slmops.teach.draws import Voter

SIDES = ("train", "validation", "pool", "test")

CARD = "card.json"


class CurateSettings(Curate):
    """As `Curate`, what else is to be known of the recipe, and what each teacher counts where all answer every row."""

    screen: ScreenSettings
    weights: list[float] = Field(default_factory=list)


class CurateAnswers:
    """`data`, `answers` and perhaps each teacher's own (`answers_1`, …) → the answers to learn from, as of `Teach`.

    Teachers' own are given where several answers to every row voted: of several teachers, or several draws of one.

    Writes besides those `dropped.jsonl`, every row that any stage so far has dropped, and `card.json`.

    Rows that are not in the pool of `data`, such as written ones, have been compared with no others: here they are.
    """

    name: ClassVar[str] = "curate"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("py3langid", "scipy")

    def run(self, inputs: Mapping[str, Path], settings: CurateSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl, write_jsonl
        from slmops.tasks import task_of
        from slmops.teach.answers import load_answers, save_answers
        from slmops.teach.card import data_card
        from slmops.teach.draws import voters
        from slmops.teach.paying import cost_in

        task, answers = task_of(inputs["data"]), load_answers(inputs["answers"])
        sides = {side: read_jsonl(inputs["data"] / f"{side}.jsonl") for side in SIDES}
        each = [inputs[f"answers_{n}"] for n in range(1, len(settings.weights) + 1)]
        votes = _Votes(voters(each, settings.weights))
        dropped = [*read_jsonl(inputs["data"] / "dropped.jsonl"), *_unformed(inputs["answers"], sides["pool"], task)]
        curation = _Curation(answers, dropped)
        with context.progress.task("curate answers", None, ""):
            _screen(curation, sides, settings, task)
            _check(curation, votes, sides, settings, task, context.seed)
        kept = curation.answers
        if not kept:
            counts = ", ".join(f"{count} {reason}" for reason, count in curation.counts.most_common())
            raise SlmopsError(
                f"none of the {len(answers)} answers is left to learn from: {counts}",
                hint="see teach.curate and data.screen",
            )
        for reason, count in curation.counts.items():
            context.progress.note(f"dropped {count:,} answers: {reason}")
        card = data_card(
            kept,
            dropped,
            {side: len(rows) for side, rows in sides.items()},
            sides["train"],
            task,
            agreement=votes.behind(kept, task) if each else None,
            cost=cost_in(inputs["answers"]),
            seed=context.seed,
        )
        _warn(card["imbalance"], settings, context)
        save_answers(context.out, kept)
        write_jsonl(context.out / "dropped.jsonl", dropped)
        (context.out / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        figures = {"rows": len(kept), "dropped": curation.counts.total()}
        return figures | ({} if card["imbalance"] is None else {"imbalance": card["imbalance"]})


class _Votes:
    """What each draw of each teacher said to each row."""

    def __init__(self, asked: Sequence[Voter]) -> None:
        from slmops.data.read import read_jsonl

        self._weights = [voter.weight for voter in asked]
        self._texts = [
            {row["id"]: row["text"] for row in read_jsonl(voter.folder / "answers.jsonl")} for voter in asked
        ]

    def behind(self, answers: Sequence[Answer], task: Task) -> list[float]:
        """See `agreements`."""
        from slmops.teach.curate import agreements

        return agreements(answers, self._texts, self._weights, task)


class _Curation:
    """Answers that are left, and rows that are not."""

    def __init__(self, answers: Sequence[Answer], dropped: list[Row]) -> None:
        self.answers, self.dropped = list(answers), dropped
        self.counts: Counter[str] = Counter()

    def drop(self, reason: str, found: Found) -> None:
        from slmops.data.dropped import dropped_row

        for place, finding in found.items():
            answer = self.answers[place]
            like = None if finding.like is None else self.answers[finding.like].id
            self.dropped.append(
                dropped_row(
                    {"id": answer.id, "input": answer.input},
                    "pool",
                    reason,
                    finding.detail,
                    stage=CurateAnswers.name,
                    like=like,
                    similarity=finding.similarity,
                    text=answer.text,
                )
            )
        self.counts[reason] += len(found)
        self.counts += Counter()  # without those that count nothing
        self.answers = [answer for place, answer in enumerate(self.answers) if place not in found]


def _screen(curation: _Curation, sides: Mapping[str, list[Row]], settings: CurateSettings, task: Task) -> None:
    """Drop the answers to rows that `data` has not compared and that resemble others."""
    from slmops.data.check import Screen
    from slmops.data.screen import screened

    known = {row["id"]: row["input"] for row in sides["pool"]}
    rows = [{"id": answer.id, "input": answer.input} for answer in curation.answers]
    pool = [row for row in rows if known.get(row["id"]) == row["input"]]
    new = [row for row in rows if known.get(row["id"]) != row["input"]]
    if not new:
        return
    screen = Screen(stage=CurateAnswers.name)
    for side in ("test", "validation", "train"):
        screen.remember(sides[side], side)
    screen.remember(pool, "pool")
    _, dropped = screened(
        list(screen.sift(new, "written")),
        "written",
        held={"test": sides["test"], "validation": sides["validation"]},
        beside={"train": sides["train"], "pool": pool},
        settings=settings.screen,
        kind=task.describe()["kind"],
        stage=CurateAnswers.name,
    )
    lost = [*screen.dropped, *dropped]
    curation.dropped += lost
    curation.counts.update(row["reason"] for row in lost)
    gone = {row["id"] for row in lost}
    curation.answers = [answer for answer in curation.answers if answer.id not in gone]


def _check(
    curation: _Curation,
    votes: _Votes,
    sides: Mapping[str, list[Row]],
    settings: CurateSettings,
    task: Task,
    seed: int,
) -> None:
    """Drop the answers that are not to be learned from for what they say."""
    from slmops.data.dropped import NEAR_DUPLICATE
    from slmops.teach import curate

    if settings.agreement is not None:
        agreement = votes.behind(curation.answers, task)
        curation.drop(curate.INCONSISTENT, curate.inconsistent(agreement, settings.agreement))
    if curate.is_free_text(task):
        if settings.lengths is not None:
            curation.drop(curate.LENGTH, curate.odd_lengths(curation.answers, settings.lengths))
        references = [task.write(row["output"]) for side in ("train", "validation") for row in sides[side]]
        curation.drop(curate.LANGUAGE, curate.foreign(curation.answers, references, settings))
        if settings.near_duplicates is not None:
            curation.drop(NEAR_DUPLICATE, curate.repeated(curation.answers, settings.near_duplicates))
    if settings.rebalance == "downsample" and settings.max_imbalance is not None:
        most = settings.max_imbalance
        curation.drop(curate.IMBALANCE, curate.too_many(curation.answers, sides["train"], task, most, seed))


def _unformed(folder: Path, pool: Sequence[Row], task: Task) -> list[Row]:
    """The rows that the teacher stage had no use for, as all dropped rows are told."""
    from slmops.data.dropped import dropped_row
    from slmops.data.read import read_jsonl
    from slmops.teach.curate import unformed

    texts = {row["id"]: row["input"] for row in pool}
    return [
        dropped_row(
            {"id": row["id"], "input": texts.get(row["id"], "")},
            "pool",
            row.get("counted") or unformed(row["text"], task),
            row["reason"],
            stage="teach",
            text=row["text"],
        )
        for row in read_jsonl(folder / "dropped.jsonl")
    ]


def _warn(imbalance: float | None, settings: CurateSettings, context: Context) -> None:
    if imbalance is not None and settings.max_imbalance is not None and imbalance > settings.max_imbalance + 1e-9:
        context.progress.note(
            f"the largest class has {imbalance:.0f} times the rows of the smallest, more than "
            f"teach.curate.max_imbalance {settings.max_imbalance:g}"
        )
