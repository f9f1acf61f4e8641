"""The SQLite file below a home: its tables, and how several processes read and write it at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slmops.errors import SlmopsError
from slmops.pipeline.locks import hold

_BUSY_SECONDS = 30
_VERSION = 1
_TABLES = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, recipe_name TEXT NOT NULL, recipe TEXT NOT NULL, environment TEXT NOT NULL,
    started TEXT NOT NULL, ended TEXT, state TEXT NOT NULL, exit_code INTEGER, error TEXT
);
CREATE TABLE steps (
    run TEXT NOT NULL REFERENCES runs (id), position INTEGER NOT NULL, node TEXT NOT NULL, key TEXT NOT NULL,
    state TEXT NOT NULL, cached INTEGER NOT NULL DEFAULT 0, seconds REAL, metrics TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (run, node)
);
"""


class Database:
    """The database at `path`, made on the first write.

    Raises:
        OSError, sqlite3.OperationalError: from every method, when it cannot be read or written.
        SlmopsError: from every method, when a newer slmops wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: committed at the end of the block, rolled back on an error."""
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS)
        try:
            if self._version(connection) == 0:
                self._create(connection)
            with connection:
                yield connection
        finally:
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection that sees one moment, or None while nothing was ever written."""
        connection = self._reader() if self.path.exists() else None
        if connection is None:
            yield None
            return
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("BEGIN")
            yield connection if self._version(connection) else None
        finally:
            connection.close()

    def _reader(self) -> sqlite3.Connection:
        address = f"{self.path.as_uri()}?mode=ro"
        connection = sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)
        try:
            self._version(connection)
        except sqlite3.OperationalError:
            connection.close()
            if os.access(self.path.parent, os.W_OK):
                raise
            # In a read-only folder SQLite cannot make the files that write-ahead logging needs, and nobody
            # writes there either: the database is as good as immutable.
            return sqlite3.connect(f"{address}&immutable=1", uri=True)
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait for its turn when two connections switch to write-ahead logging at once.
        with hold(self.path.with_suffix(".lock"), on_wait=lambda: None):
            if self._version(connection) == 0:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")

    def _version(self, connection: sqlite3.Connection) -> int:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise SlmopsError(f"{self.path} was written by a newer slmops", hint="upgrade slmops")
        return version
