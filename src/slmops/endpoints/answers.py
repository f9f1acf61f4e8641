"""Answers that were paid for once: kept as they come, found again by what was asked of whom."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slmops.errors import SlmopsError

_BUSY_SECONDS = 30


def key(**parts: Any) -> str:
    """SHA-256 over everything that shapes an answer, plain JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Answers:
    """A SQLite file of records by key. What `keep` returned from is there after a kill of this process.

    Attributes:
        connection: of the file, for what else is kept in it.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, or make it.

        Raises:
            OSError, sqlite3.OperationalError: it cannot be read or written.
            SlmopsError: the file is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only one coroutine or the main thread uses the connection at a time.
        self.connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            self.connection.execute("PRAGMA journal_mode = WAL")
            # What was written survives a kill of this process; waiting for the disk each time would survive a power
            # cut too, at a hundred answers a second.
            self.connection.execute("PRAGMA synchronous = NORMAL")
            self.connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, record TEXT NOT NULL)")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            raise SlmopsError(
                f"{path} is damaged: {error}", hint="delete it; answers are then asked for again"
            ) from None

    def find(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The records that there are."""
        found = {}
        for one in keys:
            row = self.connection.execute("SELECT record FROM answers WHERE key = ?", (one,)).fetchone()
            if row:
                found[one] = json.loads(row[0])
        return found

    def keep(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Write records for good, all or none."""
        with self.connection:
            self.connection.execute("BEGIN")
            self.insert(records)

    def insert(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """As `keep`, as part of a transaction of the caller's."""
        rows = [(one, json.dumps(record, ensure_ascii=False)) for one, record in records.items()]
        self.connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    def close(self) -> None:
        self.connection.close()
