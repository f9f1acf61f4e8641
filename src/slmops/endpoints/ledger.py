"""What was asked, what it cost and what came back: written down before it is sent, and before it counts.

A request's worst cost is written before the request leaves, and replaced by the real one together with the answer. So
a kill at any moment leaves a file that knows every answer that was taken, and counts in full what may still be charged.

What a round of the event loop writes is one transaction: whoever needs it kept waits for `written`.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from slmops.endpoints.answers import Answers
from slmops.endpoints.money import PICO, Cost
from slmops.recipe.teaching import Budget

_CHARGES = """
CREATE TABLE IF NOT EXISTS charges (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL,
    pico INTEGER NOT NULL, tokens INTEGER NOT NULL, spoiled INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS charges_by_key ON charges (key);
CREATE TABLE IF NOT EXISTS follows (question TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (question, key));
CREATE TEMP TABLE wanted (key TEXT PRIMARY KEY);
"""


_OF_WANTED = "FROM charges JOIN wanted USING (key)"


class Ledger:
    """The answers to some questions, and what all requests for them have cost, in whichever run they were sent.

    Attributes:
        spent: settled costs, and the worst ones of requests whose end is not known.
        under_way: requests of this process that are not settled.
        opened: when asking began, by `time.monotonic`.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        """Open the file at `path`, or make it; see `Answers`."""
        self.answers = Answers(path)
        self.budget = budget
        self.under_way = 0
        self.opened = time.monotonic()
        self.spent = Cost()
        self._spoiled: dict[str, int] = {}
        self._end_of_round: asyncio.Future[None] | None = None
        self._db = self.answers.connection
        self._db.executescript(_CHARGES)

    def count(self, keys: Iterable[str]) -> None:
        """Take the questions whose costs count against the budget, and with them those that followed on them."""
        self._want(keys)
        self._db.execute(
            "INSERT OR IGNORE INTO wanted SELECT follows.key FROM follows JOIN wanted ON wanted.key = question"
        )
        self.recount()

    def cost(self, keys: Iterable[str]) -> Cost:
        """What all requests for these questions alone have cost; what is counted stays as it is."""
        self._want(keys)
        return self._cost_of_wanted()

    def follow(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Write down, for good, which questions follow on the answers to which: on `question` follows `key`.

        A judge's question is one: it is not known before the answers are, and counts wherever these do.
        """
        self._db.commit()
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR IGNORE INTO follows VALUES (?, ?)", pairs)

    def _want(self, keys: Iterable[str]) -> None:
        self._db.commit()  # the last failure of a purchase may not be kept yet
        self._db.execute("DELETE FROM wanted")
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((key,) for key in keys))

    def recount(self) -> None:
        """Sum up anew what the questions that were taken have cost: somebody else has written charges."""
        self.spent = self._cost_of_wanted()
        spoiled = f"SELECT key, SUM(spoiled) {_OF_WANTED} GROUP BY key HAVING SUM(spoiled) > 0"
        self._spoiled = dict(self._db.execute(spoiled))

    def _cost_of_wanted(self) -> Cost:
        sums = f"SELECT COALESCE(SUM(pico), 0), COALESCE(SUM(tokens), 0), COUNT(*) {_OF_WANTED}"
        return Cost(*self._db.execute(sums).fetchone())

    def fits(self, most: Cost) -> bool:
        """Whether the budget allows a request that costs so much at most."""
        then, budget = self.spent + most, self.budget
        return (
            (budget.usd is None or then.pico <= math.floor(Decimal(str(budget.usd)) * PICO))
            and (budget.tokens is None or then.tokens <= budget.tokens)
            and (budget.requests is None or then.requests <= budget.requests)
        )

    def reserve(self, key: str, most: Cost) -> int:
        """Write down a request that leaves once this is `written`; returns its number."""
        self._begin()
        cursor = self._db.execute(
            "INSERT INTO charges (key, pico, tokens, spoiled) VALUES (?, ?, ?, 0)", (key, most.pico, most.tokens)
        )
        self.spent += most
        self.under_way += 1
        return int(cursor.lastrowid or 0)

    def settle(
        self,
        number: int,
        key: str,
        most: Cost,
        cost: Cost,
        *,
        answer: Mapping[str, Any] | None = None,
        spoiled: bool = False,
    ) -> None:
        """Write down what became of a request: its real cost, and the answer with it or not at all.

        Args:
            most: what was reserved for it.
            spoiled: what came back cannot be used, so it is to be asked anew, under another idempotency key.
        """
        self._begin()
        self._db.execute(
            "UPDATE charges SET pico = ?, tokens = ?, spoiled = ? WHERE id = ?",
            (cost.pico, cost.tokens, int(spoiled), number),
        )
        if answer is not None:
            self.answers.insert({key: answer})
        if spoiled:
            self._spoiled[key] = self._spoiled.get(key, 0) + 1
        self.spent += Cost(cost.pico - most.pico, cost.tokens - most.tokens)
        self.under_way -= 1

    def idempotency_key(self, key: str) -> str:
        """The same for every try at a question until one came back spoiled: a server that has answered it answers it
        again and charges it once.
        """
        return f"slmops-{key}-{self._spoiled.get(key, 0)}"

    def told(self) -> str:
        """The caps and what is spent of them: `usd 5 (4.998 spent)`."""
        budget, spent = self.budget, self.spent
        caps = {
            "usd": (budget.usd, f"{spent.usd:.6f}"),
            "tokens": (budget.tokens, f"{spent.tokens}"),
            "requests": (budget.requests, f"{spent.requests}"),
        }
        return ", ".join(f"{name} {cap:g} ({so_far} spent)" for name, (cap, so_far) in caps.items() if cap is not None)

    async def written(self) -> None:
        """Return when everything written so far is kept, also over a kill."""
        if self._end_of_round is None:
            loop = asyncio.get_running_loop()
            self._end_of_round = loop.create_future()
            loop.call_soon(self._commit, self._end_of_round)
        await asyncio.shield(self._end_of_round)

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN")

    def _commit(self, round_: asyncio.Future[None]) -> None:
        self._end_of_round = None
        try:
            self._db.commit()
        except sqlite3.Error as error:
            round_.set_exception(error)
        else:
            round_.set_result(None)

    def close(self) -> None:
        """Nothing that was written is lost."""
        self._db.commit()
        self.answers.close()
