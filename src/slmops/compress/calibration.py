"""The user's own texts as a model reads them, to measure it on before its weights are rounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.data.read import read_jsonl
from slmops.engines.reading import Reader
from slmops.errors import BadInput
from slmops.models.tag_files import is_tagger
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.tasks import task_of

if TYPE_CHECKING:
    from slmops.tasks.base import Row, Task

MIN_TOKENS = 256
"""Fewer say too little of what a layer is given."""


def calibration_texts(data: Path, model: Path, tokens: int) -> list[tuple[int, ...]]:
    """Rows of `data` in the tokens of `model`, some `tokens` in all: the labelled ones with their answers first.

    Rows of the pool follow as requests alone. Test and validation rows are not looked at.

    Args:
        data: what the data stage wrote.
        model: a Hugging Face folder.

    Raises:
        BadInput: all rows together are shorter than `MIN_TOKENS`.
    """
    task, tokenizer = task_of(data), Tokenizer.load(model)
    reads = _readings(task, tokenizer) if is_tagger(model) else _writings(task, tokenizer)
    texts: list[tuple[int, ...]] = []
    room = tokens
    for row in (row for side in ("train", "pool") for row in read_jsonl(data / f"{side}.jsonl")):
        if room <= 0:
            break
        texts.append(reads(row))
        room -= len(texts[-1])
    if tokens - room < MIN_TOKENS:
        raise BadInput(
            f"the rows to measure the layers on have {tokens - room} tokens, and {MIN_TOKENS} are needed",
            hint="give more rows, or set compress.algorithm: rtn, which needs none",
        )
    return texts


def _readings(task: Task, tokenizer: Tokenizer) -> Callable[[Row], tuple[int, ...]]:
    """For a model that labels: each message twice, as it reads them."""
    reader = Reader(task.describe(), tokenizer)
    return lambda row: reader.reading(tokenizer.prompt(task.render(row["input"]))).ids


def _writings(task: Task, tokenizer: Tokenizer) -> Callable[[Row], tuple[int, ...]]:
    """For a model that writes: the request, and the answer where it is known."""
    end = end_of_answer(tokenizer)

    def ids(row: Row) -> tuple[int, ...]:
        answer = (*tokenizer.encode(task.write(row["output"])), end) if "output" in row else ()
        return (*tokenizer.prompt(task.render(row["input"])), *answer)

    return ids
