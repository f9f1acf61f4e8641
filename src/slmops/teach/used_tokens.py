"""The tokens that a user's own rows are made of: what a vocabulary has to keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.data.read import read_jsonl
from slmops.tasks import Classification

if TYPE_CHECKING:
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks.base import Task


def used_tokens(tokenizer: Tokenizer, task: Task, data: Path, answers: Path | None = None) -> set[int]:
    """Ids in the prompts of training rows and pool, in their answers where they are labelled, and in the task's labels.

    What the chat template writes is in the prompts. Test and validation rows are not looked at.

    Args:
        data: what the data stage wrote.
        answers: a folder with a teacher's answers; the requests that it answered and its texts count too.
    """
    used: set[int] = set()
    for asked, answer in _texts(task, data, answers):
        used |= set(tokenizer.prompt(task.render(asked)))
        used |= set(tokenizer.encode(answer))
    for label in task.labels if isinstance(task, Classification) else ():
        used |= set(tokenizer.encode(task.write(label)))
    return used


def _texts(task: Task, data: Path, answers: Path | None) -> Iterator[tuple[str, str]]:
    """Requests with their answers, empty where there is none."""
    for row in [*read_jsonl(data / "train.jsonl"), *read_jsonl(data / "pool.jsonl")]:
        yield row["input"], task.write(row["output"]) if "output" in row else ""
    for row in read_jsonl(answers / "answers.jsonl") if answers else ():
        yield row["input"], row["text"]
