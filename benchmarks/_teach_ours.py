"""Our side of `teach.py`: `_teach_ours.py URL LEDGER ROWS CONCURRENCY USD` asks, and prints seconds, those of the
processor, those between two quarters of the rows, and peak memory."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import aiohttp  # noqa: F401 - what the client imports when it is first used is not its rate

from slmops.endpoints.buying import Manner, Question, buy
from slmops.endpoints.client import Endpoint
from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import Tariff
from slmops.errors import BudgetReached
from slmops.progress import Silent
from slmops.recipe.evaluate import Price
from slmops.recipe.teaching import Budget

PRICE = Price(input_usd=2.0, output_usd=10.0)
MAX_TOKENS = 16
TEXT = "Row {}: where is my order? It was to come on Monday, and I have been waiting for it ever since."


def questions(rows: int) -> Iterator[Question]:
    for row in range(rows):
        yield Question(f"k{row}", [{"role": "user", "content": TEXT.format(row)}])


def timed(asked: Iterator[Question], every: int, moments: list[float]) -> Iterator[Question]:
    """The same questions; `moments` gets the time at which each so many of them were taken."""
    for number, question in enumerate(asked):
        if number % every == 0:
            moments.append(time.perf_counter())
        yield question
    moments.append(time.perf_counter())


def main() -> None:
    url, path, rows, concurrency, usd = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5]), float(sys.argv[5])
    ledger = Ledger(path, Budget(usd=usd))
    ledger.count(question.key for question in questions(rows))
    known = ledger.answers.find(question.key for question in questions(rows)).keys()
    manner = Manner({"max_tokens": MAX_TOKENS, "temperature": 0.0}, MAX_TOKENS, concurrency, 5, 60.0)
    quarters: list[float] = []
    asked = timed((question for question in questions(rows) if question.key not in known), rows // 4, quarters)
    begun, worked = time.perf_counter(), time.process_time()
    with Silent().task("", None, "") as bar, contextlib.suppress(BudgetReached):
        buy(Endpoint(url, "toy"), asked, manner, Tariff.of(PRICE), ledger, lambda _: None, bar)
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - worked
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {"seconds": seconds, "cpu_s": cpu_s, "peak_rss_mb": peak_mb, "usd": ledger.spent.usd}
    print(json.dumps(told | {"quarters_s": [after - before for before, after in pairwise(quarters)]}))


if __name__ == "__main__":
    main()
