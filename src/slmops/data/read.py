"""Rows from files: `{"id", "input", "output"}`, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from slmops.data.formats import Placed, records
from slmops.errors import BadInput
from slmops.tasks import ParseFailure, Row, plain_text

Reader = Callable[[Any], str | ParseFailure]
"""Makes the text of an input out of what a row gives; see `tasks.input_reader`."""


def read_rows(
    path: Path,
    side: str,
    *,
    input: str = "input",
    output: str | None = "output",
    also: str | None = None,
    reader: Reader = plain_text,
) -> Iterator[Placed]:
    """The rows of a JSONL, CSV or Parquet file and their places, read as they are asked for.

    Args:
        path: the file; its suffix says what it is.
        side: what the rows are for; begins the ids that are made for rows without one.
        input: column with the text.
        output: column with the answer; None when rows need none, and then an answer is not read.
        also: a further column, which rows may have: it comes with them, under its own name.
        reader: makes the text of an input out of what stands in its column.

    Raises:
        BadInput: names the file and line of a row that is broken, has a wrong or missing column, an empty text
            or an id that was there before, or the file when it has no rows.
    """
    places: dict[str, str] = {}
    for number, (place, record) in enumerate(records(path), 1):
        row: dict[str, Any] = {
            "id": _id(record, place, f"{side}-{number}"),
            "input": _text(record, input, place, reader),
        }
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


def _text(record: dict[str, Any], column: str, place: str, reader: Reader) -> str:
    given = _column(record, column, place, "input")
    text = reader(given)
    if isinstance(text, ParseFailure):
        raise BadInput(f"{place}: `{column}` is {json.dumps(given, default=str)[:60]}; {text.reason}")
    if not text.strip():
        raise BadInput(f"{place}: `{column}` is empty")
    return text


def _column(record: dict[str, Any], column: str, place: str, key: str) -> Any:
    if record.get(column) is None:
        there = ", ".join(f"`{name}`" for name in record) or "nothing"
        raise BadInput(f"{place}: no `{column}`; there is {there}", hint=f"data.{key} names the column")
    return record[column]
