"""What the compression benchmark makes small: models trained here on a task, each once, and rows they have not seen."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from slmops.models.chat_template import PLAIN
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.tasks import Classification, Extraction
from slmops.tasks.base import ParseFailure, Row, Task

SEED = 7

Run = Callable[[str, Mapping[str, Any]], dict[str, Any]]
"""Runs a job of `_compress_ours.py` under a name and gives what it found."""


@dataclass(frozen=True)
class Subject:
    """A task with the rows that a model is trained on, and others that it is asked about.

    Attributes:
        layers: kept of the model, the first ones; None keeps all.
        optimisation: how it is trained; see `slmops.recipe.training.Optimisation`.
    """

    name: str
    task: Task
    train: Sequence[Row]
    test: Sequence[Row]
    layers: int | None
    optimisation: Mapping[str, Any]


@dataclass(frozen=True)
class Amount:
    """How much of a subject there is.

    Attributes:
        train, test: rows; of Banking77 the training rows are so many of each intent.
    """

    train: int
    test: int
    layers: int | None
    optimisation: Mapping[str, Any]


def tickets_subject(amount: Amount) -> Subject:
    """Tickets out of messages. All rows are of one side of the grammar, so the held-out ones are like the others."""
    from slmops.samples.tickets import tickets

    schema = json.loads(files("slmops.samples").joinpath("ticket.schema.json").read_text(encoding="utf-8"))
    rows = tickets("train", amount.train + amount.test, SEED)
    task = Extraction(schema, "intent", None, 96)
    parts = rows[: amount.train], rows[amount.train :]
    return Subject("tickets", task, *parts, amount.layers, amount.optimisation)


def banking77_subject(folder: Path, amount: Amount) -> Subject:
    """Intents of customers' messages, for the files of `_headline/banking77.py`: the answer is the label alone."""
    from _headline.banking77 import read
    from _headline.corpus import LABEL, by_intent

    corpus, rng = read(folder), random.Random(SEED)  # noqa: S311 - no secret
    train = [row for rows in by_intent(corpus.train).values() for row in rows[: amount.train]]
    test = rng.sample(list(corpus.test), amount.test)
    labels = tuple(sorted({row["output"][LABEL] for row in train}))
    parts = ([row | {"output": row["output"][LABEL]} for row in rows] for rows in (train, test))
    return Subject("banking77", Classification(labels, None, 24), *parts, amount.layers, amount.optimisation)


@dataclass(frozen=True)
class Tuned:
    """A trained subject.

    Attributes:
        folder: `model/` and, as the data stage writes them, `data/` with the rows and the task.
        tokenizer: of the model.
    """

    subject: Subject
    folder: Path
    tokenizer: Tokenizer

    def prompts(self, rows: Sequence[Row]) -> list[list[int]]:
        return [_prompt(self.subject.task, self.tokenizer, row) for row in rows]

    def texts(self, rows: Sequence[Row]) -> list[list[int]]:
        """Requests with their answers."""
        return _texts(self.subject.task, self.tokenizer, rows)

    def right(self, answers: Sequence[Sequence[int]]) -> list[float]:
        """1 for each test row that was answered as it is labelled, else 0."""
        task = self.subject.task
        read = [task.parse(self.tokenizer.decode(ids)) for ids in answers]
        wanted = [row["output"] for row in self.subject.test]
        pairs = zip(wanted, read, strict=True)
        return [
            0.0 if isinstance(found, ParseFailure) else task.judge(want, found)["exact_match"] for want, found in pairs
        ]


def tuned(subject: Subject, base: Path, home: Path, run: Run, *, marks: bool = False) -> Tuned:
    """`base` trained for `subject`, kept below `home` under a key of all that it is made of.

    Args:
        marks: a head that labels takes the place of the one that writes.
    """
    tokenizer = plain(Tokenizer.load(base))
    texts = _texts(subject.task, tokenizer, subject.train)
    job = {"layers": subject.layers, "optimisation": dict(subject.optimisation), "texts": texts, "seed": SEED}
    if marks:
        job["marks"] = True
    folder = home / "compress" / f"{subject.name}-{_key(base, job)}"
    if not folder.is_dir():
        draft = folder.with_suffix(".part")
        shutil.rmtree(draft, ignore_errors=True)
        tokenizer.save(draft / "model")
        write_data(subject, draft / "data")
        run(f"tune-{subject.name}", {"job": "tune", "base": str(base), "out": str(draft / "model"), **job})
        draft.rename(folder)
    return Tuned(subject, folder, tokenizer)


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """The same words with a message a line: marks of who speaks would be half of every text here."""
    return Tokenizer(
        tokenizer.backend, template=PLAIN, special_tokens=tokenizer.special_tokens, end_ids=tokenizer.end_ids
    )


def write_data(subject: Subject, folder: Path) -> None:
    """The rows and the task as stages read them that measure a model on its training rows."""
    from slmops.data.read import write_jsonl

    folder.mkdir(parents=True)
    write_jsonl(folder / "train.jsonl", subject.train)
    write_jsonl(folder / "pool.jsonl", [])
    (folder / "task.json").write_text(json.dumps(subject.task.describe()), encoding="utf-8")


def _prompt(task: Task, tokenizer: Tokenizer, row: Row) -> list[int]:
    return tokenizer.prompt(task.render(row["input"]))


def _texts(task: Task, tokenizer: Tokenizer, rows: Sequence[Row]) -> list[list[int]]:
    end = end_of_answer(tokenizer)
    return [[*_prompt(task, tokenizer, row), *tokenizer.encode(task.write(row["output"])), end] for row in rows]


def _key(base: Path, job: Mapping[str, Any]) -> str:
    weights = hashlib.sha256()
    for path in sorted(base.glob("*.safetensors")):
        weights.update(path.read_bytes())
    weights.update(json.dumps(job, sort_keys=True).encode())
    return weights.hexdigest()[:12]
