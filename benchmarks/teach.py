"""Asking a teacher behind an endpoint: the rate beside the ideal one, and what kills lose and buy twice.

The teacher is a server on loopback that answers each request after 200 ms, in a process of its own. The ideal is one
that keeps `concurrency` requests under way without a gap. Then the asking process is killed with SIGKILL at random
moments and started again, each time with a budget that is just above what was spent, and the server's own counts say
what was bought twice and whether a cap was passed. No rival is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from _contract import publish
from _teach_ours import MAX_TOKENS, PRICE, TEXT, questions

from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import PICO, Tariff
from slmops.recipe.teaching import Budget

HERE = Path(__file__).parent
GOALS = {"rate_over_ideal": 0.95, "overspend_usd": 0.0, "rows_lost": 0, "rows_bought_twice": 0}

PLENTY_USD = 1000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="asked at the full rate")
    parser.add_argument("--latency-ms", type=int, default=200, help="of the teacher")
    parser.add_argument("--concurrency", type=int, default=256, help="requests at a time")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of the rate")
    parser.add_argument("--kills", type=int, default=50, help="of the asking process")
    parser.add_argument("--quick", action="store_true", help="1,000 rows once and 5 kills; the result is not kept")
    given = parser.parse_args()
    rows, repeats, kills = (1000, 1, 5) if given.quick else (given.rows, given.repeats, given.kills)
    ideal_s = math.ceil(rows / given.concurrency) * given.latency_ms / 1e3
    runs = [rate(rows, given.latency_ms, given.concurrency) for _ in range(repeats)]
    small = rate(rows // 10, given.latency_ms, given.concurrency)
    shares = [ideal_s / run["seconds"] for run in runs]
    figures = {
        "rate_over_ideal": median(shares),
        "rows_per_s": median(rows / run["seconds"] for run in runs),
        "ideal_rows_per_s": rows / ideal_s,
        "cpu_ms_per_row": median(run["cpu_s"] * 1e3 / rows for run in runs),
        "peak_rss_mb": max(run["peak_rss_mb"] for run in runs),
        "rss_growth_mb": max(run["peak_rss_mb"] for run in runs) - small["peak_rss_mb"],
        **killed(kills),
    }
    publish("teach", figures, goals=GOALS, spread={"rate_over_ideal": (min(shares), max(shares))}, keep=not given.quick)


def rate(rows: int, latency_ms: int, concurrency: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, server(latency_ms) as port:
        with asking(port, Path(folder, "ledger.db"), rows, concurrency, PLENTY_USD) as process:
            *_, last = process.stdout
        counts = stats(port)["asked"].values()
        if len(counts) != rows or set(counts) != {1}:
            raise SystemExit(
                f"{len(counts)} of {rows} rows were asked, {max(counts)} times at most: no such rate counts"
            )
        return json.loads(last)


def killed(kills: int, *, rows: int = 3000, concurrency: int = 32) -> dict[str, float]:
    """What the server counted while the asking process was killed so many times, and then let to its end."""
    rng, twice, over, resent = random.Random(7), 0, 0, [0]  # noqa: S311
    most = Tariff.of(PRICE).most([{"t": TEXT}], MAX_TOKENS).pico
    with tempfile.TemporaryDirectory() as folder, server(20) as port:
        path = Path(folder, "ledger.db")
        for _ in range(kills):
            known, spent = taken(path, rows)
            before = stats(port)["asked"]
            cap = spent + rng.randrange(concurrency, 4 * concurrency) * most
            with asking(port, path, rows, concurrency, cap / PICO) as process:
                while process.poll() is None and stats(port)["asked"] == before:
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, 0.15))
                process.kill()
            time.sleep(0.05)
            told = stats(port)
            twice += sum(told["asked"].get(text, 0) != before.get(text, 0) for text in known)
            resent.append(sum(told["asked"].values()) - len(told["asked"]) - sum(resent))
            over = max(over, told["charged"] - cap)
        with asking(port, path, rows, concurrency, PLENTY_USD) as process:
            process.wait()
        lost = rows - len(taken(path, rows)[0])
    figures = {"kills": kills, "rows_lost": lost, "rows_bought_twice": twice, "in_flight_resent_max": max(resent)}
    return {**figures, "overspend_usd": over / PICO}


def taken(path: Path, rows: int) -> tuple[set[str], int]:
    """The texts whose answers have arrived, and picodollars that count as spent."""
    ledger = Ledger(path, Budget())
    asked = {question.key: str(question.messages[0]["content"]) for question in questions(rows)}
    ledger.count(asked)
    known = ledger.answers.find(asked)
    ledger.close()
    return {asked[key] for key in known}, ledger.spent.pico


@contextmanager
def server(latency_ms: int) -> Iterator[int]:
    command = [sys.executable, str(HERE / "_teach_server.py"), str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def asking(port: int, path: Path, rows: int, concurrency: int, usd: float) -> subprocess.Popen[str]:
    url = f"http://127.0.0.1:{port}/v1"
    command = [sys.executable, str(HERE / "_teach_ours.py"), url, str(path), str(rows), str(concurrency), str(usd)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def stats(port: int) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as answer:
        return json.loads(answer.read())


if __name__ == "__main__":
    main()
