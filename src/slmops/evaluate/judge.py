"""Open answers judged by a teacher model: an opinion, kept apart from what is measured.

Pairwise: which of two answers is better, asked in both orders; a win counts when both orders agree, anything else is a
tie. Rubric: grades from 1 to 5 per criterion, given twice. How far the judge agrees with itself is part of the result,
and where it does not, or says what cannot be read, nothing it says counts. Source: Zheng et al. (2023), "Judging
LLM-as-a-Judge with MT-Bench and Chatbot Arena", NeurIPS, sections 3.3 and 3.4 (position bias, swapped positions).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from slmops.evaluate.ask import Ask
from slmops.evaluate.judge_prompts import Choice, pairwise, read_choice, read_grades, rubric
from slmops.evaluate.significance import bootstrap_interval, paired_bootstrap, wilson
from slmops.recipe.evaluate import JudgeSettings

Winner = Literal["ours", "theirs", "tie"]


class Answered(NamedTuple):
    """A test row with the answers of two models, as texts."""

    id: str
    request: str
    reference: str
    ours: str
    theirs: str


def drawn(rows: Sequence[Answered], most: int, seed: int) -> list[Answered]:
    """At most `most` of the rows, the same ones for a seed, in their order."""
    if len(rows) <= most:
        return list(rows)
    chosen = random.Random(f"judge:{seed}").sample(range(len(rows)), most)  # noqa: S311
    return [rows[i] for i in sorted(chosen)]


def judge(ask: Ask, rows: Sequence[Answered], settings: JudgeSettings, *, seed: int) -> dict[str, Any]:
    """Everything the judge says, as plain JSON.

    Returns:
        `rows`, of which `readable` and `unreadable`; `figures` (0..1 in pairwise mode, 1..5 by rubric) with `interval`
        (95 %), null where nothing could be read; `agreement` of the judge with itself (`share`, `rows`, `interval`,
        `how`); `reliable`, and if it is not, `why`; `verdicts`, one per row with the judge's own texts.

    Raises:
        SlmopsError: the judge does not answer any more.
    """
    if settings.mode == "pairwise":
        verdicts = _compared(ask, rows)
        found = _pairwise_figures(verdicts)
    else:
        verdicts = _graded(ask, rows, settings.rubric, seed)
        found = _rubric_figures(verdicts, settings.rubric, seed)
    unreadable = sum(not verdict["readable"] for verdict in verdicts)
    why = _unreliable(unreadable, len(rows), found["agreement"]["share"], settings)
    return {
        "judge": settings.model,
        "where": "this machine" if settings.base_url is None else "an endpoint",
        "mode": settings.mode,
        "against": settings.against,
        "rows": len(rows),
        "readable": len(rows) - unreadable,
        "unreadable": unreadable,
        "reliable": why is None,
        "why": why,
        **found,
        "verdicts": verdicts,
    }


def _unreliable(unreadable: int, rows: int, agreement: float | None, settings: JudgeSettings) -> str | None:
    """Why nothing that the judge says counts, or None."""
    if unreadable == rows:
        return f"none of {rows} verdicts can be read"
    if unreadable / rows > settings.max_unreadable:
        return f"{unreadable} of {rows} verdicts cannot be read; {settings.max_unreadable:.0%} may be"
    if agreement is not None and agreement < settings.min_agreement:
        return f"the judge agrees with itself in {agreement:.0%} of cases; {settings.min_agreement:.0%} are needed"
    return None


def _compared(ask: Ask, rows: Sequence[Answered]) -> list[dict[str, Any]]:
    """One verdict per row. Equal answers are a tie that nobody need be asked about."""
    asked = [row for row in rows if row.ours != row.theirs]
    forward = ask.ask([pairwise(row.request, row.reference, row.ours, row.theirs) for row in asked])
    backward = ask.ask([pairwise(row.request, row.reference, row.theirs, row.ours) for row in asked])
    texts = {row.id: pair for row, pair in zip(asked, zip(forward, backward, strict=True), strict=True)}
    return [_verdict(row.id, texts.get(row.id)) for row in rows]


def _verdict(id: str, texts: tuple[str, str] | None) -> dict[str, Any]:
    if texts is None:
        return {"id": id, "readable": True, "winner": "tie", "same": True}
    first, second = (read_choice(text) for text in texts)
    readable = first is not None and second is not None
    verdict: dict[str, Any] = {"id": id, "readable": readable, "choices": [first, second], "texts": list(texts)}
    if first is None or second is None:
        return verdict
    winners = _winner(first, ours="A"), _winner(second, ours="B")
    agree = winners[0] == winners[1]
    return verdict | {"winner": winners[0] if agree else "tie", "agree": agree}


def _winner(choice: Choice, *, ours: Choice) -> Winner:
    if choice == "tie":
        return "tie"
    return "ours" if choice == ours else "theirs"


def _pairwise_figures(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    winners = [verdict["winner"] for verdict in verdicts if verdict["readable"]]
    named = {"win_rate": "ours", "loss_rate": "theirs", "tie_rate": "tie"}
    counts = {name: winners.count(winner) for name, winner in named.items()}
    rows = len(winners)
    agreed = [verdict["agree"] for verdict in verdicts if "agree" in verdict]
    chosen = [choice for verdict in verdicts if "agree" in verdict for choice in verdict["choices"] if choice != "tie"]
    return {
        "scale": 1.0,
        "figures": {name: count / rows if rows else None for name, count in counts.items()},
        "interval": {name: list(wilson(count, rows)) if rows else None for name, count in counts.items()},
        "agreement": {
            "how": "both orders",
            "share": sum(agreed) / len(agreed) if agreed else None,
            "rows": len(agreed),
            "interval": list(wilson(sum(agreed), len(agreed))) if agreed else None,
        },
        "first_chosen": chosen.count("A") / len(chosen) if chosen else None,
    }


def _graded(ask: Ask, rows: Sequence[Answered], criteria: Mapping[str, str], seed: int) -> list[dict[str, Any]]:
    """One verdict per row: the grades of both answers, and of ours once more, drawn at a seed."""

    def prompts(whose: Literal["ours", "theirs"]) -> list[Any]:
        return [rubric(row.request, row.reference, getattr(row, whose), criteria) for row in rows]

    texts = {"ours": ask.ask(prompts("ours")), "theirs": ask.ask(prompts("theirs"))}
    texts["again"] = ask.ask(prompts("ours"), seed=seed + 1)
    verdicts = []
    for i, row in enumerate(rows):
        grades = {whose: read_grades(said[i], criteria) for whose, said in texts.items()}
        readable = all(grade is not None for grade in grades.values())
        verdicts.append({"id": row.id, "readable": readable, **grades, "texts": [said[i] for said in texts.values()]})
    return verdicts


def _rubric_figures(verdicts: Sequence[Mapping[str, Any]], criteria: Mapping[str, str], seed: int) -> dict[str, Any]:
    read = [verdict for verdict in verdicts if verdict["readable"]]
    # One criterion more: the mean of all, unless a criterion has its name.
    names = list(dict.fromkeys([*criteria, "overall"]))

    def mean(whose: str, name: str) -> float | None:
        return float(np.mean(column(whose, name))) if read else None

    def column(whose: str, name: str) -> list[float]:
        taken = [name] if name in criteria else list(criteria)
        return [float(np.mean([verdict[whose][each] for each in taken])) for verdict in read]

    agreed = [float(np.mean([v["ours"][name] == v["again"][name] for name in criteria])) for v in read]
    gaps = {name: paired_bootstrap(column("ours", name), column("theirs", name), seed=seed) for name in names if read}
    ends = {name: list(bootstrap_interval(column("ours", name), seed=seed)) for name in names if read}
    return {
        "scale": 4.0,
        "figures": {name: mean("ours", name) for name in names},
        "interval": {name: ends.get(name) for name in names},
        "theirs": {name: mean("theirs", name) for name in names},
        "difference": {name: {"value": gap.value, "interval": list(gap.interval)} for name, gap in gaps.items()},
        "agreement": {
            "how": "graded twice",
            "share": float(np.mean(agreed)) if agreed else None,
            "rows": len(agreed),
            "interval": list(bootstrap_interval(agreed, seed=seed)) if agreed else None,
        },
    }
