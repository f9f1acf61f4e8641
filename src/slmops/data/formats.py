"""Records out of JSONL, CSV and Parquet files, one at a time, each with its place."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slmops.errors import BadInput
from slmops.tasks import strict_json

Placed = tuple[str, dict[str, Any]]
"""A record and where it stands, e.g. `("data/train.jsonl:12", {"input": "…"})`."""

MAX_LINE_BYTES = 1_000_000


def records(path: Path) -> Iterator[Placed]:
    """The records of a file, read as they are asked for.

    Raises:
        BadInput: the file cannot be read, is of no known format, or a record is broken; says which line.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise BadInput(
            f"{path}: unknown kind of file {path.suffix or '(no suffix)'!r}", hint=f"known: {', '.join(_READERS)}"
        )
    try:
        yield from reader(path)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from None


def _jsonl(path: Path) -> Iterator[Placed]:
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            record = strict_json.loads(line)
        except ValueError as error:
            raise BadInput(f"{place}: {error}", hint="each line of a JSONL file is one JSON object") from None
        if not isinstance(record, dict):
            raise BadInput(f"{place}: not a JSON object: {line.strip()[:60]}")
        yield place, record


def _csv(path: Path) -> Iterator[Placed]:
    reader = csv.reader(lines_of(path), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise BadInput(f"{path}:1: column {twice[0]!r} is given twice")
        start = reader.line_num + 1
        for cells in reader:
            place, start = f"{path}:{start}", reader.line_num + 1
            if cells and len(cells) != len(header):
                raise BadInput(f"{place}: {len(cells)} cells, but the header has {len(header)} columns")
            if cells:
                yield place, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _parquet(path: Path) -> Iterator[Placed]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", _without_nulls(record)
    except (ArrowException, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not Parquet: {' '.join(str(error).split())[:200]}") from None


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """Columns have no absent cells: null stands for them."""
    return {
        name: _without_nulls(cell) if isinstance(cell, dict) else cell
        for name, cell in value.items()
        if cell is not None
    }


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file, read as they are asked for.

    Raises:
        BadInput: a line is not UTF-8 or too long; says which.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
            if len(line) > MAX_LINE_BYTES:
                raise BadInput(f"{path}:{number}: longer than {MAX_LINE_BYTES:,} bytes")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise BadInput(f"{path}:{number}: not UTF-8 at byte {error.start + 1}") from None


_READERS: dict[str, Callable[[Path], Iterator[Placed]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
