"""Texts that need no answer, out of plain text files and files of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slmops.data.formats import Placed, lines_of, records
from slmops.errors import BadInput

PLAIN = (".txt", ".md")
"""Suffixes of plain text; blank lines part two texts of one file."""


def read_texts(path: Path, column: str) -> Iterator[str]:
    """The texts of a file, read as they are asked for; empty ones are passed over.

    Args:
        path: plain text, or rows in any of the formats of `records`.
        column: of the rows, where the text stands.

    Raises:
        BadInput: the file cannot be read or holds no text, or a row has none; says which line.
    """
    found = False
    for place, row in _paragraphs(path, column) if path.suffix.lower() in PLAIN else records(path):
        text = row.get(column)
        if not isinstance(text, str):
            there = ", ".join(f"`{name}`" for name in row) or "nothing"
            problem = f"no `{column}`; there is {there}" if text is None else f"`{column}` is no text"
            raise BadInput(f"{place}: {problem}", hint="student.heal.column names the column")
        if text.strip():
            found = True
            yield text
    if not found:
        raise BadInput(f"{path}: holds no text")


def _paragraphs(path: Path, column: str) -> Iterator[Placed]:
    """Each text as a row, its lines as they are."""
    held: list[str] = []
    try:
        for number, line in enumerate(lines_of(path), 1):
            if line.strip():
                held.append(line)
            elif held:
                yield f"{path}:{number}", {column: "".join(held).strip()}
                held = []
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from None
    if held:
        yield f"{path}: the last text", {column: "".join(held).strip()}
