"""What is asked of every side of the compression benchmark, in the same way: answers, log-probabilities, speed.

Every side is a script that ends in `main(load, make)` and runs as `SCRIPT WORK JOB` in an environment of its own, with
numpy for what stands here. The job is `JOB.json` in the folder WORK, and what was found goes to `JOB.found.json`. Texts
come and go as tokens, so that no side has a tokenizer of its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

TOGETHER = 8
"""Answers written side by side."""

_WARM_UP_TOKENS = 8

Prompts = Sequence[Sequence[int]]
Job = Mapping[str, Any]


@dataclass(frozen=True)
class Written:
    """Greedy answers.

    Attributes:
        answers: tokens of each, its end token included.
        seconds: from the first token of all answers to the last, so without the time to read prompts.
    """

    answers: list[list[int]]
    seconds: float


class Runner(Protocol):
    """A loaded model."""

    def log_probs(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Log-probability of each token but the first given those before it, [len(ids) - 1]."""

    def write(self, prompts: Prompts, limit: int, ends: Collection[int]) -> Written:
        """The most likely token after the other for all prompts together, up to one of `ends` or `limit` tokens.

        Args:
            ends: without any, every answer has `limit` tokens.
        """


Load = Callable[[Job], Runner]
"""From a job with `model` (what `make` wrote) and `threads`."""

Make = Callable[[Job, Path], Mapping[str, Any]]
"""From a job with `source` (a Hugging Face folder), `out` and the side's own settings, and a folder for work.

Gives `model`, what `load` takes, and `size_bytes` of its weights.
"""


def main(load: Load, make: Make) -> None:
    """Do the one job that this process was started for."""
    work, name = Path(sys.argv[1]), sys.argv[2]
    job = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    found = make(job, work) if job["job"] == "make" else {"quality": quality, "speed": speed}[job["job"]](load, job)
    (work / f"{name}.found.json").write_text(json.dumps(found), encoding="utf-8")


def quality(load: Load, job: Job) -> dict[str, Any]:
    """`log_probs` of the texts in `score`, and the `answers` to `prompts`."""
    runner = load(job)
    prompts, answers = job["prompts"], []
    for start in range(0, len(prompts), TOGETHER):
        answers += runner.write(prompts[start : start + TOGETHER], job["limit"], job["ends"]).answers
    return {"log_probs": [runner.log_probs(ids).tolist() for ids in job["score"]], "answers": answers}


def speed(load: Load, job: Job) -> dict[str, Any]:
    """Seconds to load, tokens per second of one stream and of all `prompts` together, and the most memory taken."""
    begun = time.perf_counter()
    runner = load(job)
    load_s = time.perf_counter() - begun
    prompts, tokens = job["prompts"], job["tokens"]
    runner.write(prompts, _WARM_UP_TOKENS, ())
    alone = [_rate(runner, [prompt], tokens) for prompt in prompts[: job["repeats"]]]
    together = [_rate(runner, prompts, tokens) for _ in range(job["repeats"])]
    rates = {"alone_tokens_per_s": median(alone), "together_tokens_per_s": median(together)}
    return {"load_s": load_s, **rates, "peak_mb": peak_mb()}


def _rate(runner: Runner, prompts: Prompts, tokens: int) -> float:
    return len(prompts) * (tokens - 1) / runner.write(prompts, tokens, ()).seconds


def log_probs_of(logits: npt.NDArray[np.float32], ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """Of each token but the first under the logits [len(ids), vocabulary] at the token before it."""
    before = logits[: len(ids) - 1].astype(np.float32)
    before = before - before.max(axis=1, keepdims=True)
    chosen = before[np.arange(len(ids) - 1), np.asarray(ids[1:])]
    found: npt.NDArray[np.float32] = chosen - np.log(np.exp(before).sum(axis=1))
    return found


class Answers:
    """Answers in the making, for sides that decode step by step."""

    def __init__(self, count: int, limit: int, ends: Collection[int]) -> None:
        self._limit, self._ends = limit, set(ends)
        self.written: list[list[int]] = [[] for _ in range(count)]
        self._steps: list[float] = []

    def take(self, tokens: Sequence[int]) -> bool:
        """The next token of every answer, of which finished ones drop theirs; whether any answer goes on."""
        self._steps.append(time.perf_counter())
        for i in self.running:
            self.written[i].append(int(tokens[i]))
        return bool(self.running)

    @property
    def running(self) -> list[int]:
        """Numbers of the answers that are not finished."""
        return [i for i, ids in enumerate(self.written) if len(ids) < self._limit and not self._ends & set(ids[-1:])]

    def done(self) -> Written:
        return Written(self.written, self._steps[-1] - self._steps[0])


def size_bytes(folder: Path, *endings: str) -> int:
    """Bytes of the files below `folder` whose names end so."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.name.endswith(endings))


def peak_mb() -> float:
    """High-water mark of this process's resident memory; /proc, because `getrusage` counts the parent's too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / 1e6
