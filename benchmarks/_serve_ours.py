"""Our side of the serving benchmark: what `slmops serve` runs, from the queue inwards; HTTP is left out for all."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from _compress_ours import make as make_model
from measuring import Job
from serving import Ask, Came, Server
from serving import main as do_job

from slmops.bundle import write_bundle
from slmops.bundle.stage import common_phrases
from slmops.engines import Sampling, engine_of
from slmops.engines.base import Logits
from slmops.serve.choosing import Choosing
from slmops.serve.generation import Generation, Piece
from slmops.serve.job import Ended
from slmops.serve.marking import Weighing
from slmops.serve.served import Served

_SIDE, _PRODUCTS = 2048, 6


class Writes:
    """Answers as a served bundle writes them; only what ends one is the benchmark's to say."""

    def __init__(self, job: Job) -> None:
        self._served = Served(Path(job["model"]), slots=job["streams"], threads=job["threads"], queue=job["streams"])
        self._ends = frozenset(job["ends"])
        self._came: SimpleQueue[Came | Ended] = SimpleQueue()

    def ask(self, request: int, ask: Ask) -> None:
        def deliver(piece: Piece) -> None:
            came = None if piece.token is None else Came(request, piece.token, piece.ended is not None)
            self._came.put(came or piece.ended or "failed")

        sampling = Sampling(max_tokens=ask["tokens"])
        tokenizer, guesser = self._served.bundle.tokenizer, self._served.guesser(ask["prompt"])
        job = Generation(ask["prompt"], sampling, deliver, tokenizer, guesser=guesser)
        job._end_ids = self._ends
        self._served.scheduler.submit(job)

    def step(self) -> list[Came]:
        told = [self._came.get()]
        while not self._came.empty():
            told.append(self._came.get())
        if early := [one for one in told if not isinstance(one, Came)]:
            sys.exit(f"a request ended before its time: {early[0]}")
        return [one for one in told if isinstance(one, Came)]


class Labels(Writes):
    """The likeliest label of each request; the one token that comes is its number."""

    def ask(self, request: int, ask: Ask) -> None:
        def found(told: Logits | Ended) -> None:
            self._came.put(told if isinstance(told, str) else Came(request, int(np.argmax(told)), True))

        served = self._served
        if marker := served.marker:
            served.scheduler.submit(Weighing(marker.reading(ask["prompt"]), marker, found))
        else:
            served.scheduler.submit(Choosing(ask["prompt"], served.label_tree, len(served.labels), found))


def load(job: Job) -> Server:
    return Labels(job) if job["labels"] else Writes(job)


def make(job: Job, work: Path) -> Mapping[str, Any]:
    """The stage that ships models, and its bundle."""
    made = make_model(job, work)
    folder, bundle = Path(made["model"]), Path(job["out"]) / "bundle"
    task = json.loads((Path(job["source"]) / "data" / "task.json").read_text(encoding="utf-8"))
    phrases = common_phrases(folder, Path(job["source"]) / "data", None)
    told = {"task": task, "lineage": {}, "evidence": {}, "phrases": phrases}
    write_bundle(bundle, name="served", version="1", engine=engine_of(folder), model_folder=folder, **told)
    return made | {"model": str(bundle), "folder": str(folder)}


def multiply(job: Job) -> dict[str, float]:
    """Products of float32 numbers a second in a product of two large matrices, with all threads; the best of several.

    The threads are those that this process was started with.
    """
    matrix, seconds = np.ones((_SIDE, _SIDE), dtype=np.float32), []
    for _ in range(_PRODUCTS):
        begun = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - begun)
    return {"products_per_s": _SIDE**3 / min(seconds), "threads": job["threads"]}


def main(work: Path, name: str) -> None:
    job: Mapping[str, Any] = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    if job["job"] != "multiply":
        do_job(load, make)
        return
    (work / f"{name}.found.json").write_text(json.dumps(multiply(job)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
