"""Asking a teacher behind an endpoint: the rate beside the ideal one, and what kills lose and buy twice.

The teacher is a server on loopback that answers each request after 200 ms, in a process of its own. The ideal is one
that keeps `concurrency` requests under way without a gap. Then the asking process is killed with SIGKILL at random
moments and started again, each time with a budget that is just above what was spent, and the server's own counts say
what was bought twice and whether a cap was passed.

The rival is distilabel's client (`OpenAILLM`, which asks through OpenAI's SDK) in an environment of its own, without
the pipeline around it, which would only take longer. It keeps neither answers nor a budget. It asks a batch at once and
the next one when all of it has come, so a batch is `concurrency` rows. It is slower, so it is asked fewer rows.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from _contract import publish
from _sides import RIVALS, rival_python, run_rival
from _teach_ours import MAX_TOKENS, PRICE, TEXT, questions

from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import PICO, Tariff
from slmops.recipe.teaching import Budget

HERE = Path(__file__).parent
RIVAL, LOCK = "distilabel", RIVALS / "distilabel.lock"
GOALS = {
    "rate_over_ideal": 0.95,
    "rate_over_distilabel": 1.0,
    "late_over_early_rate": 0.95,
    "peak_rss_mb": 300.0,
    "overspend_usd": 0.0,
    "rows_lost": 0,
    "rows_bought_twice": 0,
}

PLENTY_USD = 1000.0

Run = dict[str, Any]
"""What one run of a side measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="asked at the full rate")
    parser.add_argument("--latency-ms", type=int, default=200, help="of the teacher")
    parser.add_argument("--concurrency", type=int, default=256, help="requests at a time")
    parser.add_argument("--rival-rows", type=int, default=2560, help="that distilabel is asked")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of the rates")
    parser.add_argument("--kills", type=int, default=50, help="of the asking process")
    parser.add_argument("--home", type=Path, default=HERE.parent / ".slmops", help="folder for the rival")
    parser.add_argument("--quick", action="store_true", help="1,000 rows once and 5 kills; the result is not kept")
    given = parser.parse_args()
    if given.quick:
        given.rows, given.rival_rows, given.repeats, given.kills = 1000, 512, 1, 5
    python = rival_python(RIVAL, LOCK, given.home)
    ours, theirs = [], []
    for _ in range(given.repeats):
        ours.append(rate(given.rows, given.latency_ms, given.concurrency))
        if python:
            theirs.append(rival_rate(python, given.rival_rows, given.latency_ms, given.concurrency))
    small = rate(given.rows // 10, given.latency_ms, given.concurrency)
    ideal = given.rows / (math.ceil(given.rows / given.concurrency) * given.latency_ms / 1e3)
    figures = {
        **figures_of(ours, theirs, ideal),
        "rss_growth_mb": max(run["peak_rss_mb"] for run in ours) - small["peak_rss_mb"],
        **killed(given.kills),
    }
    shares = [run["rows_per_s"] / ideal for run in ours]
    publish("teach", figures, goals=GOALS, spread={"rate_over_ideal": (min(shares), max(shares))}, keep=not given.quick)


def figures_of(ours: Sequence[Run], theirs: Sequence[Run], ideal: float) -> dict[str, float]:
    """Medians over the runs; a ratio is that of medians.

    Args:
        theirs: none where the rival could not be installed.
        ideal: rows per second.
    """
    rows_per_s, beside = median_of(ours, "rows_per_s"), {}
    if theirs:
        beside = {
            "rate_over_distilabel": rows_per_s / median_of(theirs, "rows_per_s"),
            "rows_per_s_distilabel": median_of(theirs, "rows_per_s"),
            "cpu_ms_per_row_distilabel": median_of(theirs, "cpu_ms_per_row"),
            "rows_distilabel": theirs[0]["rows"],
        }
    return {
        "rate_over_ideal": rows_per_s / ideal,
        "rows_per_s": rows_per_s,
        "ideal_rows_per_s": ideal,
        **beside,
        # The first quarter has the start in it: one row alone, and connections to open.
        "late_over_early_rate": median(run["quarters_s"][1] / run["quarters_s"][3] for run in ours),
        "cpu_ms_per_row": median_of(ours, "cpu_ms_per_row"),
        "server_cpu_ms_per_row": median_of(ours, "server_cpu_ms_per_row"),
        "peak_rss_mb": max(run["peak_rss_mb"] for run in ours),
    }


def median_of(runs: Sequence[Run], figure: str) -> float:
    return median(run[figure] for run in runs)


def rate(rows: int, latency_ms: int, concurrency: int) -> Run:
    """Our side, asked once."""
    with tempfile.TemporaryDirectory() as folder, server(latency_ms) as port:
        with asking(port, Path(folder, "ledger.db"), rows, concurrency, PLENTY_USD) as process:
            *_, last = process.stdout
        return measured(json.loads(last), rows, port)


def rival_rate(python: Path, rows: int, latency_ms: int, concurrency: int) -> Run:
    """The same of distilabel.

    Raises:
        SystemExit: it failed, or did not answer every row.
    """
    with tempfile.TemporaryDirectory() as folder, server(latency_ms) as port:
        texts, found = Path(folder, "texts.json"), Path(folder, "found.json")
        texts.write_text(json.dumps([TEXT.format(row) for row in range(rows)]), encoding="utf-8")
        told = [f"http://127.0.0.1:{port}/v1", str(texts), str(concurrency), str(found)]
        run_rival(RIVAL, python, "distilabel_rows.py", told, work=Path(folder), threads=1)
        run = json.loads(found.read_text(encoding="utf-8"))
        if run["answered"] != rows:
            sys.exit(f"{RIVAL} answered {run['answered']} of {rows} rows: no such rate counts")
        return measured(run, rows, port)


def measured(run: Run, rows: int, port: int) -> Run:
    """A run with its rate, and what it cost both sides.

    Raises:
        SystemExit: the server was not asked every row once.
    """
    told = stats(port)
    counts = told["asked"].values()
    if len(counts) != rows or set(counts) != {1}:
        sys.exit(f"{len(counts)} of {rows} rows were asked, {max(counts)} times at most: no such rate counts")
    costs = {"cpu_ms_per_row": run["cpu_s"] * 1e3 / rows, "server_cpu_ms_per_row": told["cpu_s"] * 1e3 / rows}
    return run | costs | {"rows": rows, "rows_per_s": rows / run["seconds"]}


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
