"""Rows from files: `{"id", "input", "output"}`, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from slmops.data.formats import Placed, records
from slmops.data.forms import cell, in_form
from slmops.errors import BadInput
from slmops.recipe.data import Column
from slmops.tasks import ParseFailure, Row, plain_text

Reader = Callable[[Any], str | ParseFailure]
"""Makes the text of an input out of what a row gives; see `tasks.input_reader`."""


def read_rows(
    path: Path,
    side: str,
    *,
    input: Column = "input",
    output: Column | None = "output",
    also: str | None = None,
    reader: Reader = plain_text,
    instruction: str | None = None,
) -> Iterator[Placed]:
    """The rows of a JSONL, JSON, CSV or Parquet file and their places, read as they are asked for.

    Where the columns have their own names, a record may also be `{"messages"}` or `{"prompt", "completion"}`.

    Args:
        path: the file; its suffix says what it is.
        side: what the rows are for; begins the ids that are made for rows without one.
        input: column with the text, or columns that make an object; see `cell`.
        output: the same of the answer; None when rows need none, and then an answer is not read.
        also: a further column, which rows may have: it comes with them, under its own name.
        reader: makes the text of an input out of what stands in its column.
        instruction: of the task; a system message that says the same is no part of the input.

    Raises:
        BadInput: names the file and line of a row that is broken, has a wrong or missing column, an empty text
            or an id that was there before, or the file when it has no rows.
    """
    places: dict[str, str] = {}
    named = input == "input" and output in ("output", None)
    for number, (place, given) in enumerate(records(path), 1):
        record = in_form(given, instruction, place) if named else given
        row: Row = {"id": _id(record, place, f"{side}-{number}"), "input": _text(record, input, place, reader)}
        if output is not None:
            row["output"] = _column(record, output, place, "output")
        if also is not None:
            row.setdefault(also, record.get(also))
        if (first := places.setdefault(row["id"], place)) != place:
            raise BadInput(f"{place}: id {row['id']!r} was given before, at {first}", hint="ids must be unique")
        yield place, row
    if not places:
        raise BadInput(f"{path}: has no rows")


def read_jsonl(path: Path) -> list[Row]:
    """The rows of a file that `write_jsonl` wrote."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """Write one JSON object per line; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _id(record: dict[str, Any], place: str, made: str) -> str:
    given = record.get("id", made)
    if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
        raise BadInput(f"{place}: id is {given!r}; it must be a text or a whole number")
    return str(given)


def _text(record: dict[str, Any], column: Column, place: str, reader: Reader) -> str:
    given = _column(record, column, place, "input")
    text = reader(given)
    if isinstance(text, ParseFailure):
        raise BadInput(
            f"{place}: {_named(column)} is {json.dumps(given, default=str)[:60]}; {text.reason}",
            hint=_SEVERAL if "messages" in record or "prompt" in record else None,
        )
    if not text.strip():
        raise BadInput(f"{place}: {_named(column)} is empty")
    return text


_SEVERAL = (
    "several messages are for task.kind: conversation; for any other kind a system message is task.instruction, word "
    "for word"
)


def _column(record: dict[str, Any], column: Column, place: str, key: str) -> Any:
    found = cell(record, column)
    if found is None:
        there = ", ".join(f"`{name}`" for name in record) or "nothing"
        raise BadInput(f"{place}: no {_named(column)}; there is {there}", hint=f"data.{key} names the column")
    return found


def _named(column: Column) -> str:
    return f"`{column}`" if isinstance(column, str) else " or ".join(f"`{one}`" for one in column.values())
