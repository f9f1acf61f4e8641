"""The regression suite: rows that once failed in production. A row that is in it stays in it.

A file of `{"id", "input", "output", "note"}`, the note being optional. Nothing is ever dropped from it silently: a row
that another one contradicts or repeats is an error.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slmops.data.check import answered, text_digest
from slmops.data.formats import Placed, records
from slmops.data.read import read_rows
from slmops.errors import BadInput
from slmops.pipeline.files import sync
from slmops.tasks import ParseFailure, Row, Task, input_reader


def read_regression(path: Path, kind: str) -> list[Placed]:
    """The rows of a suite with their places, in order.

    Args:
        kind: of the task, which knows what an input may be made of.

    Raises:
        BadInput: there are none, or one is broken, has no id of its own, a note that is no text, an id or a text that
            was there before; names file and line.
    """
    rows: list[Placed] = []
    places: dict[str, str] = {}
    for (place, row), (_, record) in zip(
        read_rows(path, "regression", reader=input_reader(kind)), records(path), strict=True
    ):
        if "id" not in record:
            raise BadInput(f"{place}: no `id`", hint="a row is known by it from run to run; give each one its own")
        note = record.get("note")
        if not isinstance(note, str | None):
            raise BadInput(f"{place}: `note` is {note!r}; it must be a text")
        if (first := places.setdefault(text_digest(row["input"]), place)) != place:
            raise BadInput(f"{place}: the same text as {first}", hint="keep one of the two, with the right answer")
        rows.append((place, row | ({"note": note} if note else {})))
    return rows


def checked(rows: list[Placed], task: Task) -> list[Row]:
    """The rows with answers as the task wants them.

    Raises:
        BadInput: the task refuses an answer, named with its place; or its answers are not right or wrong.
    """
    good = answered(rows, task)
    if "exact_match" not in task.judge(good[0]["output"], good[0]["output"]):
        raise BadInput(
            "a regression suite needs a task whose answers are right or wrong",
            hint="take evaluate.regression out; evaluate.judge judges open answers",
        )
    return good


def add_row(path: Path, text: str, answer: str, task: Task, *, note: str | None = None, id: str | None = None) -> Row:
    """Append a row to the suite in the JSONL file `path`, which is made if it is not there; returns the row.

    The file is replaced as a whole or not at all, what stands in it is kept byte for byte, and of two processes that
    add rows at once one waits for the other.

    Args:
        text: what was asked.
        answer: what must be answered, written as the task writes it.
        note: for people: when it failed, and how.
        id: made from the text when None.

    Raises:
        BadInput: the file is no suite, has the text or the id already, or the task refuses the answer.
    """
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        raise BadInput(f"{path}: rows can be added to a JSONL file alone", hint="name it something.jsonl")
    if not text.strip():
        raise BadInput("the text is empty")
    row: Row = {"id": id or f"r-{text_digest(text)[:12]}", "input": text, "output": _answer(answer, task)}
    row |= {"note": note} if note else {}
    path = path.resolve()
    with _alone(path.parent):
        before = read_regression(path, task.describe()["kind"]) if path.exists() and path.stat().st_size else []
        for place, old in before:
            if text_digest(old["input"]) == text_digest(text):
                raise BadInput(f"{place}: the text is in the suite already", hint=f"its id is {old['id']}")
            if old["id"] == row["id"]:
                raise BadInput(f"{place}: the id {old['id']!r} is taken", hint="give another --id")
        _append(path, json.dumps(row, ensure_ascii=False, allow_nan=False))
    return row


def _answer(text: str, task: Task) -> Any:
    answer = task.parse(text)
    problem = answer.reason if isinstance(answer, ParseFailure) else task.check(answer)
    if problem is not None:
        raise BadInput(f"the answer is none of this task: {problem}", hint="write it as the model should")
    return answer


def _append(path: Path, line: str) -> None:
    content = path.read_bytes() if path.exists() else b""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(content + (b"" if content.endswith(b"\n") or not content else b"\n") + f"{line}\n".encode())
        if path.exists():
            shutil.copymode(path, fresh)
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process and leaves no file behind.

    Raises:
        BadInput: there is no such folder.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
