"""Questions, and how they are put to a server on loopback."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from slmops.endpoints.batching import buy_batches
from slmops.endpoints.buying import Manner, Question, buy
from slmops.endpoints.client import Endpoint
from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import Tariff
from slmops.privacy.audit import Gate
from slmops.progress import Silent, Task
from slmops.recipe.evaluate import Price
from slmops.recipe.teachers import Batching
from slmops.recipe.teaching import Budget

PRICE = Price(input_usd=2.0, output_usd=10.0)
MAX_TOKENS = 8


def questions(count: int) -> list[Question]:
    return [Question(f"k{i}", [{"role": "user", "content": f"text {i}"}]) for i in range(count)]


def ask(
    url: str,
    asked: list[Question],
    path: Path,
    *,
    usable: Callable[[Any], str | None] = lambda record: None if record["text"] else "the answer is empty",
    key: str | None = None,
    unusable: int = 20,
    batch: Batching | None = None,
    gate: Gate | None = None,
    bar: Task | None = None,
    **wanted: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The records of all questions that have one, and what was set aside."""
    manner = {"concurrency": 4, "retries": 3, "timeout_s": 5.0} | {n: v for n, v in wanted.items() if n in _MANNER}
    ledger = Ledger(path, Budget(**{name: value for name, value in wanted.items() if name not in _MANNER}))
    try:
        keys = [question.key for question in asked]
        ledger.count(keys)
        known = ledger.answers.find(keys)
        with Silent().task("", None, "") as silent:
            asking = partial(buy_batches, how=batch) if batch else buy
            aside = asking(
                Endpoint(url, "toy", key),
                [question for question in asked if question.key not in known],
                Manner({"max_tokens": MAX_TOKENS}, MAX_TOKENS, unusable=unusable, **manner),
                Tariff.of(PRICE, batch.discount if batch else 0.0),
                ledger,
                usable,
                bar or silent,
                gate=gate,
            )
        return ledger.answers.find(keys), aside
    finally:
        ledger.close()


_MANNER = ("concurrency", "retries", "timeout_s")


def kept(path: Path, count: int) -> tuple[dict[str, Any], Any]:
    """What a ledger knows of so many questions: its records and what was spent."""
    ledger = Ledger(path, Budget())
    try:
        keys = [f"k{i}" for i in range(count)]
        ledger.count(keys)
        return ledger.answers.find(keys), ledger.spent
    finally:
        ledger.close()
