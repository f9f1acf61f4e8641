"""How unsure a student is of its answers: the rows on which an answer would teach it most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slmops.bundle.labels import closed_set, label_probabilities
from slmops.engines.base import Engine
from slmops.models.tokenizer import Tokenizer
from slmops.progress import Progress
from slmops.tasks import Row, Task
from slmops.teach.label import label_pool

BATCH = 32
_LABELLED = 256
"""Texts whose labels are scored between two signs of progress."""


def doubts(
    engine: Engine, tokenizer: Tokenizer, task: Task, rows: Sequence[Row], *, work: Path, progress: Progress
) -> list[float]:
    """How unsure the model is of each row, 0 or more; only their order has a meaning.

    Of a closed set: 1 less the margin between the two likeliest labels (Scheffer, Decomain and Wrobel 2001, "Active
    hidden Markov models for information extraction"). A label's probability is that of all its tokens, and those of a
    task's labels add up to 1, so long labels need no allowance.

    Of any other answer: its mean negative log-probability per token, in nats, greedily written (MNLP: Shen et al. 2018,
    "Deep active learning for named entity recognition"), since a sum would only choose what is long.

    Args:
        work: keeps written answers, so that an interrupted call goes on.

    Raises:
        BadInput: see `Engine`.
    """
    if closed_set(task) is None:
        return _of_written(engine, tokenizer, task, rows, work, progress)
    found: list[float] = []
    with progress.task("the student weighs labels", len(rows), "rows") as bar:
        for start in range(0, len(rows), _LABELLED):
            texts = [row["input"] for row in rows[start : start + _LABELLED]]
            found += map(_margin, label_probabilities(engine, tokenizer, task, texts))
            bar.advance(len(texts))
    return found


def _margin(probabilities: dict[str, float]) -> float:
    *_, second, first = sorted(probabilities.values())
    return 1 - (first - second)


def _of_written(
    engine: Engine, tokenizer: Tokenizer, task: Task, rows: Sequence[Row], work: Path, progress: Progress
) -> list[float]:
    title = "the student answers the rest"
    answers = label_pool(
        engine, tokenizer, task, rows, batch=BATCH, top_logits=1, work=work, progress=progress, title=title
    )
    # The likeliest token is the one that is written.
    return [-float(np.mean(answer.top_log_probs[:, 0])) for answer in answers]
