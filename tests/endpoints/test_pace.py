"""The pace falls when the server is busy, rises when it is well, and lets nobody in above it."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from slmops.endpoints.pace import Pace, Turns


def test_it_begins_with_what_is_allowed_and_halves_once_a_round():
    pace = Pace(64)
    for sent in range(10):
        pace.busy(sent=sent * 0.01, now=1.0)
    assert pace.limit == 32, "ten that were sent together say one thing"
    pace.busy(sent=1.5, now=2.0)
    assert pace.limit == 16


def test_it_rises_by_one_a_round_while_the_latency_is_steady():
    pace = Pace(64)
    pace.answered(0.1)
    pace.busy(sent=0.0, now=1.0)
    for _ in range(33):
        pace.answered(0.1)
    assert pace.limit == 33
    for _ in range(10):
        pace.answered(0.5)
    assert pace.limit == 33, "latencies five times the usual are a queue at the server"
    for _ in range(10_000):
        pace.answered(0.1)
    assert pace.limit == 64, "and never above what is allowed"


@given(most=st.integers(1, 6), busy=st.lists(st.booleans(), min_size=1, max_size=40))
def test_never_more_inside_than_the_limit_and_everyone_has_a_turn(most, busy):
    turns, inside, done = Turns(Pace(most)), 0, 0

    async def one(is_busy: bool) -> None:
        nonlocal inside, done
        async with turns.turn():
            inside += 1
            assert inside <= most
            await asyncio.sleep(0)
            if is_busy:
                turns.pace.busy(sent=float(done), now=float(done))
            else:
                turns.pace.answered(0.1)
            inside -= 1
            done += 1

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(*map(one, busy)), 10)

    asyncio.run(main())
    assert done == len(busy)


def test_one_that_is_cancelled_in_line_takes_nobodys_turn():
    async def main() -> list[str]:
        turns, told = Turns(Pace(1)), list[str]()

        async def one(name: str, seconds: float) -> None:
            async with turns.turn():
                told.append(name)
                await asyncio.sleep(seconds)

        first = asyncio.create_task(one("first", 0.02))
        waiting = [asyncio.create_task(one(name, 0)) for name in ("second", "third")]
        await asyncio.sleep(0.005)
        waiting[0].cancel()
        await asyncio.wait_for(asyncio.gather(first, waiting[1]), 5)
        return told

    assert asyncio.run(main()) == ["first", "third"]
