"""The teacher answers the pool: stage one of distillation, with a local model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from slmops.engines import load_engine
from slmops.engines.base import Engine, Sampling, Token
from slmops.errors import SlmopsError
from slmops.models.tokenizer import Tokenizer
from slmops.pipeline.stage import Spread
from slmops.progress import Progress, Silent
from slmops.tasks import from_description
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
    batches, open_ = _batches(tokenizer, task, rows, batch, work)
    prompts = [tokenizer.prompt(task.render(row["input"])) for row in rows]
    sampling = Sampling(max_tokens=task.max_answer_tokens)
    with (progress or Silent()).task(title, sum(map(len, open_.values())), "rows") as bar:
        for folder, chosen in open_.items():
            tokens = list(engine.generate([prompts[i] for i in chosen], sampling, top_logits=top_logits))
            save_answers(folder, _answers(tokens, [rows[i] for i in chosen], tokenizer, top_logits))
            bar.advance(len(chosen))
    return _gathered(batches)


def label_pool_by(
    spread: Spread,
    engine: str,
    model: Path,
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
    """As `label_pool`, each batch a piece of work that `spread` does: of the same batches, kept in the same places.

    Args:
        engine: a key of `ENGINES`, which each process loads once.
        model: the folder that it runs; `work` and it are seen by all machines.
    """
    batches, open_ = _batches(tokenizer, task, rows, batch, work)
    asked = {"engine": engine, "model": str(model), "task": task.describe(), "top_logits": top_logits}
    items = [
        json.dumps(asked | {"out": str(folder), "rows": [rows[i] for i in chosen]}) for folder, chosen in open_.items()
    ]
    sizes = [len(chosen) for chosen in open_.values()]
    with (progress or Silent()).task(title, sum(sizes), "rows") as bar:
        for number, _ in spread("slmops.teach.label:label_batch", items):
            bar.advance(sizes[number])
    return _gathered(batches)


def label_batch(text: str) -> str:
    """One batch of `label_pool_by`, which is where to find what `text` holds; returns nothing to know of."""
    asked = json.loads(text)
    task, tokenizer = from_description(asked["task"]), Tokenizer.load(Path(asked["model"]))
    prompts = [tokenizer.prompt(task.render(row["input"])) for row in asked["rows"]]
    sampling = Sampling(max_tokens=task.max_answer_tokens)
    engine = _loaded(asked["engine"], asked["model"])
    tokens = list(engine.generate(prompts, sampling, top_logits=asked["top_logits"]))
    save_answers(Path(asked["out"]), _answers(tokens, asked["rows"], tokenizer, asked["top_logits"]))
    return ""


@lru_cache(maxsize=1)
def _loaded(engine: str, model: str) -> Engine:
    return load_engine(engine, Path(model), threads=1)


def _batches(
    tokenizer: Tokenizer, task: Task, rows: Sequence[Row], batch: int, work: Path
) -> tuple[dict[Path, list[int]], dict[Path, list[int]]]:
    """Where the answers of each batch are kept and which rows are in it: of all, and of those not yet answered."""
    lengths = [len(tokenizer.prompt(task.render(row["input"]))) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: lengths[i])
    batches = {work / f"batch-{start:06d}": order[start : start + batch] for start in range(0, len(order), batch)}
    return batches, {folder: chosen for folder, chosen in batches.items() if not (folder / "answers.jsonl").exists()}


def _gathered(batches: Mapping[Path, Sequence[int]]) -> list[Answer]:
    found: dict[int, Answer] = {}
    for folder, chosen in batches.items():
        found |= dict(zip(chosen, load_answers(folder), strict=True))
    return [found[i] for i in range(len(found))]


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
