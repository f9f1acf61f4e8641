"""One model, measured in a process of its own: latency, memory, and an answer to every test row.

Run as `python -m slmops.evaluate.probe JOB.json`; see `Job`. Progress goes to stdout, a line of JSON for requests done.
The process loads one engine and nothing else, so its peak memory is that of serving this model.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slmops.data.read import read_jsonl, write_jsonl
from slmops.engines.base import Engine, EngineInfo, Sampling
from slmops.evaluate.energy import METHOD, Meter
from slmops.evaluate.latency import PASSES, Timed, passes, summary
from slmops.evaluate.process import cpu_seconds, peak_rss_bytes
from slmops.models.tokenizer import Tokenizer
from slmops.tasks.base import Row, Task

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
        probabilities: give every answered row the `probabilities` of the task's labels.
        reference_nll: give every answered row the `nll` (in nats) of its reference answer and the `tokens` of it;
            the rows need `output` then.
        loss: give the figures `loss`, see `_loss`; the rows need `output` then.
    """

    engine: str
    model: str
    task: dict[str, Any]
    rows: str
    latency_requests: int
    threads: int
    answers: bool
    out: str
    probabilities: bool = False
    reference_nll: bool = False
    loss: bool = False


@dataclass(frozen=True)
class Subject:
    """A loaded model and what it is asked."""

    engine: Engine
    tokenizer: Tokenizer
    task: Task

    @property
    def sampling(self) -> Sampling:
        """Greedy, up to the task's longest answer."""
        return Sampling(max_tokens=self.task.max_answer_tokens)

    def prompt(self, row: Row) -> list[int]:
        return self.tokenizer.prompt(self.task.render(row["input"]))


def probe(job: Job) -> dict[str, Any]:
    """Measure, write both files, and return the figures; `method` among them says how they came about.

    Latency is wall time of one request at a time after a warm-up, prompt rendering and tokenising included;
    `ttft` is the part of it up to the first token. Peak memory is the process's resident high-water mark at
    the end of that phase, before the test rows are answered in batches. That is on the processor; the batches are
    run on a GPU where there is one and the engine has a use for it.
    """
    from slmops.engines import load_engine, on_gpu
    from slmops.models.tag_files import is_tagger
    from slmops.tasks import from_description

    rows = read_jsonl(Path(job.rows))
    task = from_description(job.task)
    started = time.perf_counter()
    engine = load_engine(job.engine, Path(job.model), threads=job.threads)
    subject = Subject(engine, Tokenizer.load(Path(job.model)), task)
    load_s = time.perf_counter() - started
    timed = _alone(subject, rows[: job.latency_requests])
    figures: dict[str, Any] = {"load_s": load_s, "peak_rss_bytes": peak_rss_bytes(), **asdict(engine.info()), **timed}
    if job.answers:
        engine = (
            load_engine(job.engine, Path(job.model), threads=job.threads, gpu=True) if on_gpu(job.engine) else engine
        )
        subject = replace(subject, engine=engine)
        answers, speed = _together(subject, rows)
        figures |= speed
        if job.probabilities:
            from slmops.bundle.labels import label_probabilities

            texts = [row["input"] for row in rows]
            found = label_probabilities(engine, subject.tokenizer, task, texts)
            answers = [answer | {"probabilities": one} for answer, one in zip(answers, found, strict=True)]
        if job.reference_nll:
            answers = [answer | one for answer, one in zip(answers, _references(subject, rows), strict=True)]
        write_jsonl(Path(job.out) / "predictions.jsonl", answers)
    if job.loss:
        figures["loss"] = _loss(subject, rows, labels=is_tagger(Path(job.model)))
    figures["method"] = _method(job, len(rows), engine.info())
    (Path(job.out) / "probe.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def _alone(subject: Subject, rows: Sequence[Row]) -> dict[str, Any]:
    """Each row timed by itself, in passes: times, processor time and energy."""
    parts = passes([len(subject.prompt(row)) for row in rows])
    for row in rows[:WARM_UP]:
        _request(subject, row)
    meter, cpu, begun = Meter(), cpu_seconds(), time.perf_counter()
    times = [[_request(subject, rows[i], report=True) for i in part] for part in parts]
    cpu, wall, joules = cpu_seconds() - cpu, time.perf_counter() - begun, meter.joules()
    figures = summary(times) | {"cpu_cores_used": cpu / wall, "cpu_s_per_request": cpu / len(rows)}
    if joules is not None:
        figures |= {"energy_j_per_request": joules / len(rows), "energy_method": METHOD}
    return figures


def _request(subject: Subject, row: Row, *, report: bool = False) -> Timed:
    begun = time.perf_counter()
    prompt = subject.prompt(row)
    first, count = 0.0, 0
    for _ in subject.engine.generate([prompt], subject.sampling):
        first = first or time.perf_counter() - begun
        count += 1
    timed = Timed(len(prompt), count, first, time.perf_counter() - begun)
    if report:
        _say(1)
    return timed


def _together(subject: Subject, rows: Sequence[Row]) -> tuple[list[Row], dict[str, float]]:
    """An answer to every row, and how fast they come when many are decoded at a time."""
    prompts = [subject.prompt(row) for row in rows]
    begun = time.perf_counter()
    written = _written(subject, prompts)
    seconds = time.perf_counter() - begun
    answers = [
        {"id": row["id"], "text": subject.tokenizer.decode(ids), "token_ids": ids}
        for row, ids in zip(rows, written, strict=True)
    ]
    speed = {
        "batched_rows_per_s": len(rows) / seconds,
        "batched_tokens_per_s": sum(map(len, written)) / seconds,
    }
    return answers, speed


def _written(subject: Subject, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The tokens of every answer, in order; prompts of like length are decoded together."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        for token in subject.engine.generate([prompts[i] for i in chosen], subject.sampling):
            written[chosen[token.request]].append(token.id)
        _say(len(chosen))
    return written


def _loss(subject: Subject, rows: Sequence[Row], *, labels: bool) -> float:
    """Nats per byte of the reference answers, which models of different vocabularies have in common; of a model that
    labels, which gives texts no likelihood, the share of the task's main figure that it misses.
    """
    if not labels:
        size = sum(len(subject.task.write(row["output"]).encode()) for row in rows)
        return sum(one["nll"] for one in _references(subject, rows)) / size
    from slmops.tasks import metrics

    task = subject.task
    written = _written(subject, [subject.prompt(row) for row in rows])
    texts = [subject.tokenizer.decode(ids) for ids in written]
    judged = [task.judge(row["output"], task.parse(text)) for row, text in zip(rows, texts, strict=True)]
    return 1 - metrics(task, judged)[task.figures()[0].name]


def _references(subject: Subject, rows: Sequence[Row]) -> list[dict[str, float]]:
    """What the model thinks of the reference answers: `nll`, the sum over an answer's own `tokens`, end token aside."""
    answers = [subject.tokenizer.encode(subject.task.write(row["output"])) for row in rows]
    scores = subject.engine.score([subject.prompt(row) for row in rows], answers)
    return [{"nll": -float(score.sum(dtype="float64")), "tokens": len(score)} for score in scores]


def _method(job: Job, rows: int, info: EngineInfo) -> str:
    """For readers of a report."""
    count = min(job.latency_requests, rows)
    alone = (
        f"One process for this model alone, {info.threads} engine threads. Latency: wall time of one request at a "
        f"time, rendering and tokenising included, after {min(WARM_UP, count)} requests that do not count; {count} "
        f"requests in {min(PASSES, count)} passes of like prompt lengths, the spread being that of the medians of the "
        "passes. "
        "Processor time and energy: over the same requests. Memory: the highest resident size up to their end."
    )
    where = "" if info.device == "cpu" else f", on {info.device}"
    load = f" Under load: all {rows} rows, up to {BATCH} decoded together{where}."
    return alone + load if job.answers else alone


def _say(done: int) -> None:
    print(json.dumps({"done": done}), flush=True)


def main(path: Path) -> None:
    """Do the job that is written in the file `path`, on as many cores as it has threads."""
    job = Job(**json.loads(path.read_text(encoding="utf-8")))
    if job.threads:
        # A machine with fewer cores has none to spare for what runs beside the engine. Any will do, and not the same
        # ones for all that are measured at a time.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, random.sample(cores, min(job.threads, len(cores))))
    probe(job)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
