"""Labelled rows solved step by step; of the solutions, those that end in the known answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from slmops.errors import SlmopsError
from slmops.recipe.writing import Reason
from slmops.tasks import Message, ParseFailure, Row, Task
from slmops.tasks.maths import final_number
from slmops.teach.asking import Asker, Request, Said

_ORDER = (
    "Solve this problem step by step, a step a line, and say in each what is computed and why. End with a line that "
    "has #### and the answer as a number, and nothing behind it."
)

_HOLDS_WORDS = re.compile(r"\w")


@dataclass
class Solved:
    """Rows with their solutions.

    Attributes:
        solutions: by the row's id.
        wrong: solutions that are not learned, with the reason.
    """

    solutions: dict[str, str] = field(default_factory=dict)
    wrong: list[Row] = field(default_factory=list)


def solve_rows(asker: Asker, settings: Reason, task: Task, rows: Sequence[Row]) -> Solved:
    """Draw solutions of each row until one is right, `attempts` at most: rejection sampling.

    As in Zelikman et al. (2022), "STaR: Bootstrapping Reasoning With Reasoning", section 3.1, without hints, and Yuan
    et al. (2023), "Scaling Relationship on Learning Mathematical Reasoning with Large Language Models".
    """
    out = Solved()
    for attempt in range(settings.attempts):
        open_ = [row for row in rows if row["id"] not in out.solutions]
        if not open_:
            break
        requests = [Request(ask_for(task, row), task.max_answer_tokens, attempt) for row in open_]
        title = f"teacher solves rows, attempt {attempt + 1}"
        replies = asker.ask(requests, title, lambda said: _fault(said, task))
        for row, reply in zip(open_, replies, strict=True):
            if reply is None:
                continue
            if reason := _fault(reply, task) or _wrong(reply, row, task):
                out.wrong.append({"id": row["id"], "text": reply.text, "reason": reason})
            else:
                out.solutions[row["id"]] = reply.text.strip()
    return out


def ask_for(task: Task, row: Row) -> list[Message]:
    """The request for a solution."""
    given = task.describe()["instruction"]
    parts = [_ORDER, *([given] if given else []), row["input"]]
    return [{"role": "user", "content": "\n\n".join(parts)}]


def check_enough(solved: Solved, settings: Reason, rows: Sequence[Row]) -> None:
    """Refuse to learn from too few rows.

    Raises:
        SlmopsError: says what is wrong with the others' solutions.
    """
    found = sum(row["id"] in solved.solutions for row in rows)
    if rows and found and found >= settings.at_least * len(rows):
        return
    reasons = Counter(row["reason"] for row in solved.wrong)
    told = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(3)) or "there was no reply"
    raise SlmopsError(
        f"the teacher solved {found} of {len(rows)} training rows in {settings.attempts} attempts each; others: {told}",
        hint="raise teach.reason.attempts or task.max_answer_tokens, take a stronger teacher, or lower at_least; what "
        "was bought is kept",
    )


def _fault(reply: Said, task: Task) -> str | None:
    """Why a solution cannot be learned from, whatever its answer is."""
    if not reply.whole:
        return f"cut off at {task.max_answer_tokens} tokens"
    if isinstance(parsed := task.parse(reply.text), ParseFailure):
        return parsed.reason
    return None if _HOLDS_WORDS.search(_before_the_answer(reply.text)) else "without steps"


def _before_the_answer(text: str) -> str:
    """What stands before the mark of the answer, or before the last line where there is no mark."""
    lines = text.strip().splitlines()
    return text.rpartition("####")[0] if "####" in text else "\n".join(lines[:-1])


def _wrong(reply: Said, row: Row, task: Task) -> str | None:
    right = final_number(reply.text) == final_number(task.write(row["output"]))
    return None if right else "ends in another answer than the known one"
