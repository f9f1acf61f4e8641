"""One model, measured in a process of its own: latency, memory, and an answer to every test row.

Run as `python -m slmops.evaluate.probe JOB.json`; see `Job`. Progress goes to stdout, a line of JSON for requests done.
The process loads one engine and nothing else, so its peak memory is that of serving this model.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slmops.data.read import read_jsonl, write_jsonl
from slmops.engines.base import Engine, Sampling
from slmops.errors import SlmopsError
from slmops.models.tokenizer import Tokenizer

BATCH = 32
WARM_UP = 3


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        engine: name in the engine registry.
        model: folder with the model and its tokenizer.
        task: a task's description.
        rows: JSONL file with `id` and `input`.
        latency_requests: how many rows are timed one by one.
        threads: of the engine; 0 takes all cores.
        answers: whether every row is answered, or the timed ones only.
        out: folder for `probe.json` and `predictions.jsonl`.
    """

    engine: str
    model: str
    task: dict[str, Any]
    rows: str
    latency_requests: int
    threads: int
    answers: bool
    out: str


def probe(job: Job) -> dict[str, Any]:
    """Measure, write both files, and return the figures.

    Latency is wall time of one request at a time after a warm-up, prompt rendering and tokenising included;
    `ttft` is the part of it up to the first token. Peak memory is the process's resident high-water mark at
    the end of that phase, before the test rows are answered in batches.
    """
    from slmops.engines import load_engine
    from slmops.tasks import from_description

    task = from_description(job.task)
    rows = read_jsonl(Path(job.rows))
    started = time.perf_counter()
    engine = load_engine(job.engine, Path(job.model), threads=job.threads)
    tokenizer = Tokenizer.load(Path(job.model))
    load_s = time.perf_counter() - started
    sampling = Sampling(max_tokens=task.max_answer_tokens)

    def request(text: str) -> tuple[float, float, int]:
        begun = time.perf_counter()
        first, count = 0.0, 0
        for _ in engine.generate([tokenizer.prompt(task.render(text))], sampling):
            first = first or time.perf_counter() - begun
            count += 1
        return time.perf_counter() - begun, first, count

    timed = rows[: job.latency_requests]
    for row in timed[:WARM_UP]:
        request(row["input"])
    times = []
    for row in timed:
        times.append(request(row["input"]))
        _say(1)
    figures = {"load_s": load_s, "peak_rss_bytes": peak_rss_bytes(), **asdict(engine.info()), **_summary(times)}
    if job.answers:
        prompts = [tokenizer.prompt(task.render(row["input"])) for row in rows]
        begun = time.perf_counter()
        texts = _answers(engine, tokenizer, prompts, sampling)
        figures["batched_rows_per_s"] = len(rows) / (time.perf_counter() - begun)
        answers = ({"id": row["id"], "text": text} for row, text in zip(rows, texts, strict=True))
        write_jsonl(Path(job.out) / "predictions.jsonl", answers)
    (Path(job.out) / "probe.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def _answers(engine: Engine, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
    """The text of every answer, in order; prompts of like length are decoded together."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        for token in engine.generate([prompts[i] for i in chosen], sampling):
            written[chosen[token.request]].append(token.id)
        _say(len(chosen))
    return [tokenizer.decode(ids) for ids in written]


def _summary(times: Sequence[tuple[float, float, int]]) -> dict[str, float]:
    """Medians and tails over the timed requests."""
    import numpy as np

    total, first, tokens = (np.array(column, dtype=float) for column in zip(*times, strict=True))
    decode = (total - first)[tokens > 1] / (tokens - 1)[tokens > 1]
    return {
        "latency_p50_ms": float(np.percentile(total, 50) * 1e3),
        "latency_p95_ms": float(np.percentile(total, 95) * 1e3),
        "ttft_p50_ms": float(np.percentile(first, 50) * 1e3),
        "tpot_p50_ms": float(np.percentile(decode, 50) * 1e3) if len(decode) else 0.0,
        "tokens_per_s": float(tokens.sum() / total.sum()),
        "tokens_per_answer": float(tokens.mean()),
    }


def peak_rss_bytes() -> int:
    """High-water mark of this process's resident memory.

    Read from /proc, because `getrusage` also counts the memory of the parent that started the process.

    Raises:
        SlmopsError: the kernel does not tell.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    if match is None:
        raise SlmopsError("the kernel reports no VmHWM in /proc/self/status", hint="measure on Linux")
    return int(match[1]) * 1024


def _say(done: int) -> None:
    print(json.dumps({"done": done}), flush=True)


if __name__ == "__main__":
    probe(Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
