"""The asking process is killed again and again: nothing that arrived is bought again, and the cap holds throughout."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time

from slmops.endpoints.money import PICO, Tariff
from slmops.errors import BudgetReached
from tests.endpoints.questions import MAX_TOKENS, PRICE, ask, kept, questions
from tests.endpoints.teacher_server import TeacherServer

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "aiohttp", "tests.endpoints.questions"])

ROWS, CONCURRENCY, KILLS = 400, 6, 50
MOST = Tariff.of(PRICE).most(questions(1)[0].messages, MAX_TOKENS).pico


def ask_in_process(url: str, path, usd: float) -> None:
    with contextlib.suppress(BudgetReached):
        ask(url, questions(ROWS), path, usd=usd, concurrency=CONCURRENCY)


def test_killed_at_random(tmp_path):
    rng, path = random.Random(7), tmp_path / "l.db"
    with TeacherServer(delay_s=0.004) as server:
        kills = resent = 0
        while kills < KILLS:
            known = kept(path, ROWS)[0]
            asked = dict(server.asked)
            # So near to what may be counted that a reserved cost which a kill lost would let the cap be passed.
            usd = (kept(path, ROWS)[1].pico + rng.randrange(2, 30) * MOST) / PICO
            process = PROCESSES.Process(target=ask_in_process, args=(server.url, path, usd))
            process.start()
            begun = server.asked.total()
            while process.is_alive() and server.asked.total() == begun:
                time.sleep(0.0005)
            process.join(rng.uniform(0, 0.03))
            kills += process.is_alive()
            process.kill()
            process.join()
            time.sleep(0.01)  # what is still at the server is charged
            records, spent = kept(path, ROWS)
            assert records.keys() >= known.keys(), "what was taken is there"
            again = {key for key in known if server.asked[f"text {key[1:]}"] != asked[f"text {key[1:]}"]}
            assert not again, "and is not bought again"
            assert server.charged <= spent.pico <= round(usd * PICO), "what was in flight is counted, and the cap holds"
            if len(records) == ROWS:
                path = tmp_path / f"l{kills}.db"
                server.asked.clear()
                server.charged = 0
        ask(server.url, questions(ROWS), path)
        resent = sum(times - 1 for times in server.asked.values())
        records, spent = kept(path, ROWS)
    assert len(records) == ROWS
    assert server.charged <= spent.pico
    assert resent <= KILLS * CONCURRENCY, "only what was in flight at a kill is asked again"
