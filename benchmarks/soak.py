"""A server at full load for long: whether its memory stays, every request is answered, and nothing is left at the end.

`slmops serve` runs as a process of its own. Clients ask it without a pause: whole answers, streams, several at a time,
answers held to schemas, clients that hang up or read slowly, and things that are no requests. Every minute another
bundle takes over. Memory is sampled every second; its slope is that of a line through the means of twenty parts of the
time after the first quarter, in which caches fill, and its interval that of 95 % under Student's t.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from _contract import publish
from _soak_bundle import random_bundle
from _soak_traffic import Tally, Traffic

from slmops.bundle.manifest import read_manifest
from slmops.bundle.write import place_bundle
from slmops.samples.tickets import tickets

GOALS = {
    "leak_per_hour_mb": 5.0,
    "requests_failed": 0,
    "requests_stuck": 0,
    "odd_answers_failed": 0,
    "swaps_failed": 0,
    "cache_tokens_left": 0,
    "requests_left": 0,
    "connections_left": 0,
}
"""A leak is what even the lower end of the slope's interval says."""

_PARTS, _FILLING = 20, 0.25
_REST_S = 3.0


@dataclass
class Watched:
    """What is seen of the server's process, sample by sample.

    Attributes:
        at_s: since the start.
        rss_mb: resident memory.
    """

    at_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="in place of a small one with random weights; nothing is swapped")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=24, help="that ask at a time")
    parser.add_argument("--swap-s", type=float, default=60, help="between two bundles; 0 for one alone")
    parser.add_argument("--quick", action="store_true", help="a minute, for a first look")
    told = parser.parse_args()
    minutes = 1.0 if told.quick else told.minutes
    with tempfile.TemporaryDirectory() as folder:
        home, bundles = Path(folder), []
        if told.bundle is None:
            bundles = [random_bundle(home / version, version=version, seed=i) for i, version in enumerate(("1", "2"))]
            place_bundle(bundles[0], home / "served")
        served = told.bundle or home / "served"
        swaps = bundles if told.swap_s else []
        figures, spread = asyncio.run(_soak(served, swaps, home, minutes * 60, told.clients, told.swap_s))
    publish("soak", figures, goals=GOALS, spread=spread, keep=not told.quick)


async def _soak(
    served: Path, swaps: Sequence[Path], home: Path, seconds: float, clients: int, swap_s: float
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    name, texts = read_manifest(served, verify=False).name, [row["input"] for row in tickets("train", 500, 1)]
    log, errors = (home / "log").open("w"), (home / "errors").open("w+")
    command = [sys.executable, "-m", "slmops.cli.main", "serve", str(served), "--port", "0"]
    process = subprocess.Popen(command, stdout=log, stderr=errors)
    try:
        address = await _address(home / "errors", process)
        seen, tally, over = psutil.Process(process.pid), Tally(), asyncio.Event()
        watched, begun = Watched(), time.monotonic()
        asking = [asyncio.create_task(Traffic(address, name, texts, i, tally).run(over)) for i in range(clients)]
        while (at := time.monotonic() - begun) < seconds:
            watched.at_s.append(at)
            watched.rss_mb.append(seen.memory_info().rss / 1e6)
            if swaps and int(at / swap_s) > int((at - 1) / swap_s) and at > 1:
                place_bundle(swaps[int(at / swap_s) % 2], served)
                process.send_signal(signal.SIGHUP)
            await asyncio.sleep(1)
        over.set()
        await asyncio.gather(*asking)
        took = time.monotonic() - begun
        # Who has hung up is noticed by then.
        await asyncio.sleep(_REST_S)
        # Counted before the server is asked for its figures, which is a connection too.
        left = {"connections_left": float(len(_connections(seen))), **_figures_of(address)}
    finally:
        process.terminate()
        process.wait(60)
    print(f"{dict(tally.kinds)}\n{dict(tally.statuses)}\n", file=sys.stderr)
    return _figures(watched, tally, took, left, [json.loads(line) for line in (home / "log").open()])


async def _address(errors: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the server listens, once it does."""
    while process.poll() is None:
        if found := re.search(r"http://\S+", errors.read_text()):
            return found[0]
        await asyncio.sleep(0.2)
    raise SystemExit(errors.read_text())


def _connections(seen: psutil.Process) -> list[object]:
    """Of clients, open or on their way to be closed."""
    return [one for one in seen.net_connections("tcp") if one.status not in (psutil.CONN_LISTEN, psutil.CONN_TIME_WAIT)]


def _figures_of(address: str) -> dict[str, float]:
    """What is under way by the server's own count."""
    with urllib.request.urlopen(address.removesuffix("/v1") + "/metrics", timeout=30) as reply:  # noqa: S310 - loopback
        text = reply.read().decode()
    told = {
        name: float(re.search(rf"^{name} (\S+)$", text, re.M)[1])
        for name in ("slmops_queue_depth", "slmops_running", "slmops_cache_tokens")
    }
    return {
        "requests_left": told["slmops_queue_depth"] + told["slmops_running"],
        "cache_tokens_left": told["slmops_cache_tokens"],
    }


def _figures(
    watched: Watched, tally: Tally, took: float, left: dict[str, float], log: list[dict[str, object]]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    slope, half = slope_per_hour(watched.at_s, watched.rss_mb)
    events = [str(line["event"]) for line in log]
    figures = {
        "minutes": took / 60,
        "requests": float(tally.kinds.total()),
        "requests_per_s": tally.kinds.total() / took,
        "tokens_per_s": tally.tokens / took,
        "swaps": float(events.count("bundle_changed")),
        "rss_mb": float(np.mean(watched.rss_mb[-30:])),
        "rss_growth_per_hour_mb": slope,
        "leak_per_hour_mb": max(0.0, slope - half),
        "requests_failed": float(tally.failed),
        "requests_stuck": float(tally.stuck),
        "odd_answers_failed": float(tally.odd),
        "swaps_failed": float(events.count("bundle_refused")),
        **left,
    }
    return figures, {"rss_growth_per_hour_mb": (slope - half, slope + half)}


def slope_per_hour(at_s: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The slope of a line through means, per hour, and half of its interval; neighbouring samples are too alike."""
    from scipy.stats import t

    begin = int(len(values) * _FILLING)
    x, y = (
        np.array([part.mean() for part in np.array_split(np.asarray(told[begin:]), _PARTS)]) for told in (at_s, values)
    )
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    rest = y - y.mean() - slope * away
    error = float(np.sqrt(rest @ rest / (_PARTS - 2) / (away @ away)))
    return slope * 3600, float(t.ppf(0.975, _PARTS - 2)) * error * 3600


if __name__ == "__main__":
    main()
