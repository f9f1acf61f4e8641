"""Batches of requests that were handed to a provider: kept beside the charges, so that none is handed in twice.

Before its file leaves, a batch is written down with the worst cost of each of its requests. The provider's names of
file and batch follow as soon as they are known. So behind a kill it is known how far it came: without a file nothing
was handed in; with one, the provider's own list says whether it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import Cost
from slmops.errors import SlmopsError

_TABLES = """
CREATE TABLE IF NOT EXISTS batches (number INTEGER PRIMARY KEY, file TEXT, name TEXT);
CREATE TABLE IF NOT EXISTS batched (charge INTEGER PRIMARY KEY, number INTEGER NOT NULL, key TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS batched_by_key ON batched (key);
CREATE INDEX IF NOT EXISTS batched_by_number ON batched (number);
"""


@dataclass
class Batch:
    """Requests that are under way together.

    Attributes:
        number: ours.
        charges: the numbers of the requests' charges, by the keys of their questions.
        file: the provider's name of the file with the requests; None before it is there.
        name: the provider's name of the batch; None before it is known.
    """

    number: int
    charges: Mapping[str, int] = field(repr=False)
    file: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class End:
    """What became of one request of a batch.

    Attributes:
        cost: None where nobody knows it: then its worst one counts.
        record: of the reply, where there is one.
    """

    cost: Cost | None
    record: Mapping[str, Any] | None = None


class Batches:
    """Those of a ledger. Each method returns when what it wrote is kept, also over a kill."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._db = ledger, ledger.answers.connection
        self._db.executescript(_TABLES)

    def open(self) -> list[Batch]:
        """Those under way with one at least of the questions that the ledger counts."""
        found = self._db.execute(
            "SELECT DISTINCT number, file, name FROM batches JOIN batched USING (number) JOIN wanted USING (key) "
            "ORDER BY number"
        ).fetchall()
        return [Batch(number, self._charges(number), file, name) for number, file, name in found]

    def write(self, requests: Mapping[str, Cost]) -> Batch:
        """Write down a batch before it leaves: the worst cost of each request, by the key of its question."""
        with self._transaction():
            number = int(self._db.execute("INSERT INTO batches DEFAULT VALUES").lastrowid or 0)
            for key, most in requests.items():
                charge = self._db.execute(
                    "INSERT INTO charges (key, pico, tokens, spoiled) VALUES (?, ?, ?, 0)",
                    (key, most.pico, most.tokens),
                ).lastrowid
                self._db.execute("INSERT INTO batched VALUES (?, ?, ?)", (charge, number, key))
        self._ledger.recount()
        return Batch(number, self._charges(number))

    def uploaded(self, batch: Batch, file: str) -> None:
        """Its requests are at the provider, who does nothing with them yet."""
        batch.file = file
        with self._transaction():
            self._db.execute("UPDATE batches SET file = ? WHERE number = ?", (file, batch.number))

    def handed_in(self, batch: Batch, name: str) -> None:
        """The provider has it under this name."""
        batch.name = name
        with self._transaction():
            self._db.execute("UPDATE batches SET name = ? WHERE number = ?", (name, batch.number))

    def forget(self, batch: Batch) -> None:
        """It was not handed in, or the provider would not have it: none of its requests was one."""
        with self._transaction():
            self._db.executemany("DELETE FROM charges WHERE id = ?", ((charge,) for charge in batch.charges.values()))
            self._close(batch)
        self._ledger.recount()

    def settle(self, batch: Batch, ends: Mapping[str, End]) -> None:
        """Close a batch that has ended: the cost of each of its requests, with the answer."""
        with self._transaction():
            self._db.executemany(
                "UPDATE charges SET pico = ?, tokens = ? WHERE id = ?",
                ((end.cost.pico, end.cost.tokens, batch.charges[key]) for key, end in ends.items() if end.cost),
            )
            self._ledger.answers.insert({key: end.record for key, end in ends.items() if end.record is not None})
            self._close(batch)
        self._ledger.recount()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or none, also over a power cut: these are few, and what is forgotten here is bought twice."""
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._db:
                self._db.execute("BEGIN")
                yield
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")

    def _close(self, batch: Batch) -> None:
        self._db.execute("DELETE FROM batched WHERE number = ?", (batch.number,))
        self._db.execute("DELETE FROM batches WHERE number = ?", (batch.number,))

    def _charges(self, number: int) -> dict[str, int]:
        return dict(self._db.execute("SELECT key, charge FROM batched WHERE number = ? ORDER BY charge", (number,)))


def check_none_open(ledger: Ledger) -> None:
    """Refuse to ask one by one what is under way in a batch.

    Raises:
        SlmopsError: some of the ledger's questions are.
    """
    if open_ := Batches(ledger).open():
        names = ", ".join(batch.name or f"with the file {batch.file}" for batch in open_)
        raise SlmopsError(
            f"questions of this recipe are under way in the batch {names}, and would be bought twice",
            hint="give the teacher `batch: {}` and the same command: it collects the answers",
        )
