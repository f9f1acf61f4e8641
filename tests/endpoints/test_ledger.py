"""What a ledger counts: the questions it is told, and those that followed on their answers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import Cost
from slmops.recipe.teaching import Budget


def charge(ledger: Ledger, key: str, pico: int) -> None:
    number = ledger.reserve(key, Cost(pico, pico, 1))
    ledger.settle(number, key, Cost(pico, pico, 1), Cost(pico, pico, 1), answer={"text": key})


def test_what_follows_on_an_answer_counts_wherever_that_counts(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.db"
    with closing(Ledger(path, Budget())) as ledger:
        for pico, key in enumerate(("a", "b", "judge of a and b", "c", "judge of c"), 1):
            charge(ledger, key, pico)
        ledger.follow([("a", "judge of a and b"), ("b", "judge of a and b"), ("c", "judge of c")])
        ledger.follow([("a", "judge of a and b")])
    with closing(Ledger(path, Budget(requests=3))) as ledger:
        ledger.count(["a", "b"])
        assert ledger.spent == Cost(1 + 2 + 3, 6, 3), "once, though it follows on both"
        assert not ledger.fits(Cost(requests=1))
        assert ledger.cost(["a", "b"]) == Cost(3, 3, 2), "the answers alone"
        assert ledger.spent.requests == 3
        ledger.count(["judge of c", "c"])
        assert ledger.spent == Cost(9, 9, 2)
