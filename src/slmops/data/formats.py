"""Records out of JSONL, JSON, CSV and Parquet files, one at a time, each with its place."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.errors import BadInput
from slmops.tasks import strict_json

Placed = tuple[str, dict[str, Any]]
"""A record and where it stands, e.g. `("data/train.jsonl:12", {"input": "…"})`."""

MAX_LINE_BYTES = 1_000_000

MAX_JSON_BYTES = 200_000_000
"""Of a file that is one JSON list, which is read whole."""


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


def _json(path: Path) -> Iterator[Placed]:
    with path.open("rb") as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise BadInput(f"{path}: larger than {MAX_JSON_BYTES:,} bytes", hint="write it as JSONL, one object a line")
    try:
        found = strict_json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise BadInput(
            f"{path}: {error}", hint="a JSON file is one list of objects; JSONL is one object a line"
        ) from None
    if not isinstance(found, list):
        raise BadInput(f"{path}: must hold a list of objects")
    for number, record in enumerate(found, 1):
        place = f"{path}: row {number}"
        if not isinstance(record, dict):
            raise BadInput(f"{place}: not a JSON object: {str(record)[:60]}")
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
            classes = _classes(file.schema_arrow.metadata or {})
            for batch in file.iter_batches(batch_size=1000):
                for record in batch.to_pylist():
                    number += 1
                    place = f"{path}: row {number}"
                    yield place, _without_nulls(_with_names(record, classes, place))
    except (ArrowException, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not Parquet: {' '.join(str(error).split())[:200]}") from None


def _classes(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of classes that a Hub set holds as numbers, by column (`ClassLabel` of the library `datasets`)."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        known = {name: kind for name, kind in features.items() if isinstance(kind, dict) and "names" in kind}
    except (ValueError, AttributeError):
        return {}
    return {name: kind["names"] for name, kind in known.items() if kind.get("_type") == "ClassLabel"}


def _with_names(record: dict[str, Any], classes: Mapping[str, Sequence[str]], place: str) -> dict[str, Any]:
    named: dict[str, str | None] = {}
    for column, names in classes.items():
        number = record.get(column)
        if number is None or number == -1:  # how such sets say that a row has no class
            named[column] = None
        elif not isinstance(number, int) or not 0 <= number < len(names):
            raise BadInput(f"{place}: `{column}` is {number!r}, and the file names {len(names)} classes")
        else:
            named[column] = names[number]
    return record | named


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
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
