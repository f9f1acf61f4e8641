"""What is asked of every side of the serving benchmark, in the same way: streams of requests, and when tokens come.

Every side is a script that ends in `main(load, make)` and runs as `SCRIPT WORK JOB`, as those of `measuring.py` do.
Streams begin one after the other, and each asks its next request as soon as the last one is answered, so that as many
are under way at any time. Texts come and go as tokens.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from measuring import Job, Make, peak_mb

Ask = Mapping[str, Any]
"""A request: `prompt`, the `text` that it stands for, and `tokens` that its answer has at most."""

Streams = Sequence[Sequence[Ask]]


class Came(NamedTuple):
    """A token of a request, and whether it is the last."""

    request: int
    token: int
    last: bool


class Server(Protocol):
    """A loaded model that answers several requests at once."""

    def ask(self, request: int, ask: Ask) -> None:
        """Take a request; its answer has the tokens that are asked for, or fewer where it comes to one of `ends`."""

    def step(self) -> Sequence[Came]:
        """Work on what was asked, and give what came; it may be nothing."""


Load = Callable[[Job], Server]
"""From a job with `model` (what `make` wrote), `threads`, `streams` and `room` (the most there are at a time, and
tokens of the longest request), and `ends` of an answer (none: every answer has the tokens that it is asked for)."""


def main(load: Load, make: Make) -> None:
    """Do the one job that this process was started for."""
    work, name = Path(sys.argv[1]), sys.argv[2]
    job = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    found = make(job, work) if job["job"] == "make" else served(load, job)
    (work / f"{name}.found.json").write_text(json.dumps(found), encoding="utf-8")


def served(load: Load, job: Job) -> dict[str, Any]:
    """What each of the job's `loads` found, seconds to load, and the most memory that was taken."""
    begun = time.perf_counter()
    server = load(job)
    load_s = time.perf_counter() - begun
    drive(server, job["warm_up"], 0.0)
    loads = {name: drive(server, streams, job["stagger_s"]) for name, streams in job["loads"].items()}
    return {"load_s": load_s, "loads": loads, "peak_mb": peak_mb()}


@dataclass
class _Answer:
    """Of a stream's request: when it was asked, its tokens, and when each came."""

    stream: int
    asked: float
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def drive(server: Server, streams: Streams, stagger_s: float) -> dict[str, Any]:
    """Ask everything, each stream `stagger_s` after the one before.

    Returns:
        `answers` by stream, `seconds` from the first request to the last token, `tokens` that were written in them, for
        the time to the first token (`first_s`) and from each to the next (`next_s`) the median and the 95th percentile,
        over all requests and tokens, and the first request's time to its first token (`cold_s`).
    """
    begun = time.perf_counter()
    waiting, answers = [deque(stream) for stream in streams], list[_Answer]()
    due, running = deque((begun + i * stagger_s, i) for i in range(len(streams))), 0
    while due or running:
        now = time.perf_counter()
        while due and due[0][0] <= now:
            running += _ask(server, waiting, answers, due.popleft()[1])
        if not running:
            time.sleep(max(0.0, due[0][0] - now))
            continue
        came = server.step()
        now = time.perf_counter()
        for request, token, last in came:
            answer = answers[request]
            answer.tokens.append(token)
            answer.times.append(now)
            if last:
                running += _ask(server, waiting, answers, answer.stream) - 1
    return _summary(answers, len(streams), begun)


def _ask(server: Server, waiting: Sequence[deque[Ask]], answers: list[_Answer], stream: int) -> int:
    """Ask a stream's next request; how many it had, 0 or 1."""
    if not waiting[stream]:
        return 0
    answers.append(_Answer(stream, time.perf_counter()))
    server.ask(len(answers) - 1, waiting[stream].popleft())
    return 1


def _summary(answers: Sequence[_Answer], streams: int, begun: float) -> dict[str, Any]:
    first = [answer.times[0] - answer.asked for answer in answers]
    following = [gap for answer in answers for gap in np.diff(answer.times).tolist()]
    return {
        "answers": [[answer.tokens for answer in answers if answer.stream == stream] for stream in range(streams)],
        "tokens": sum(len(answer.tokens) for answer in answers),
        "seconds": max(answer.times[-1] for answer in answers) - begun,
        "cold_s": first[0],
        "first_s": np.percentile(first, [50, 95]).tolist(),
        "next_s": np.percentile(following or [0.0], [50, 95]).tolist(),
    }


class Progress:
    """How many tokens each request has still to come, for servers that are told tokens alone."""

    def __init__(self, ends: Collection[int]) -> None:
        self._ends, self._left = frozenset(ends), dict[int, int]()

    def begin(self, request: int, tokens: int) -> None:
        self._left[request] = tokens

    def take(self, request: int, token: int) -> Came:
        """The next token of a request."""
        self._left[request] -= 1
        last = token in self._ends or not self._left[request]
        if last:
            del self._left[request]
        return Came(request, token, last)
