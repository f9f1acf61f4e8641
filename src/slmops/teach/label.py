"""The teacher answers the pool: stage one of distillation, with a local model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slmops.engines.base import Engine, Sampling, Token
from slmops.errors import SlmopsError
from slmops.models.tokenizer import Tokenizer
from slmops.progress import Progress, Silent
from slmops.tasks.base import ParseFailure, Row, Task
from slmops.teach.answers import Answer, load_answers, save_answers
from slmops.teach.endpoint import written_for_another


def label_pool(
    engine: Engine,
    tokenizer: Tokenizer,
    task: Task,
    rows: Sequence[Row],
    *,
    batch: int,
    top_logits: int,
    work: Path,
    progress: Progress | None = None,
    title: str = "teacher answers the pool",
) -> list[Answer]:
    """The engine's most likely answer to every row, in the order of `rows`; cut-off answers included.

    Rows of like length are decoded together, `batch` at a time. Each batch is kept in `work` as soon as it
    is written, so an interrupted call goes on behind the last one.
    """
    prompts = [tokenizer.prompt(task.render(row["input"])) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))
    sampling = Sampling(max_tokens=task.max_answer_tokens)
    batches = {work / f"batch-{start:06d}": order[start : start + batch] for start in range(0, len(order), batch)}
    open_ = {folder: chosen for folder, chosen in batches.items() if not (folder / "answers.jsonl").exists()}
    with (progress or Silent()).task(title, sum(map(len, open_.values())), "rows") as bar:
        for folder, chosen in open_.items():
            tokens = list(engine.generate([prompts[i] for i in chosen], sampling, top_logits=top_logits))
            save_answers(folder, _answers(tokens, [rows[i] for i in chosen], tokenizer, top_logits))
            bar.advance(len(chosen))
    found: dict[int, Answer] = {}
    for folder, chosen in batches.items():
        found |= dict(zip(chosen, load_answers(folder), strict=True))
    return [found[i] for i in range(len(rows))]


def _answers(tokens: Sequence[Token], rows: Sequence[Row], tokenizer: Tokenizer, k: int) -> list[Answer]:
    by_row: list[list[Token]] = [[] for _ in rows]
    for token in tokens:
        by_row[token.request].append(token)
    answers = []
    for row, written in zip(rows, by_row, strict=True):
        ids = np.array([token.id for token in written], dtype=np.int64)
        tops = [token.top for token in written if token.top is not None]
        top_ids = np.stack([top[0] for top in tops]) if tops else np.zeros((len(ids), k), dtype=np.int32)
        top_log_probs = np.stack([top[1] for top in tops]) if tops else np.zeros((len(ids), k), dtype=np.float32)
        answers.append(Answer(row["id"], row["input"], tokenizer.decode(ids.tolist()), ids, top_ids, top_log_probs))
    return answers


def formed(rows: Sequence[Row], answers: Sequence[Answer], task: Task, *, mend: str) -> tuple[list[Answer], list[Row]]:
    """The answers of the task's form to the rows, and the others with the reason.

    Raises:
        SlmopsError: there are none, and `mend` is what may help.
    """
    kept, dropped = [], []
    for row, answer in zip(rows, answers, strict=True):
        parsed = task.parse(answer.text)
        failure = parsed.reason if isinstance(parsed, ParseFailure) else None
        if reason := failure or written_for_another(row, answer.text, task):
            dropped.append({"id": answer.id, "text": answer.text, "reason": reason})
        else:
            kept.append(answer)
    if not kept:
        raise SlmopsError(
            f"none of the teacher's {len(answers)} answers has the form of the task; the first: {answers[0].text!r}",
            hint=mend,
        )
    return kept, dropped


def agreement(reference: Engine, answers: Sequence[Answer], tokenizer: Tokenizer, task: Task) -> float:
    """Share of the answers that `reference` writes too, token for token."""
    prompts = [tokenizer.prompt(task.render(answer.input)) for answer in answers]
    written: list[list[int]] = [[] for _ in answers]
    for token in reference.generate(prompts, Sampling(max_tokens=task.max_answer_tokens)):
        written[token.request].append(token.id)
    return float(np.mean([a == b.tokens.tolist() for a, b in zip(written, answers, strict=True)]))
