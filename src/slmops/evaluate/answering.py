"""The answers of one local model, from a process of its own, a line of JSON each as soon as its batch is done.

Run as `python -m slmops.evaluate.answering JOB.json`; see `Job`. The process that reads the lines keeps them, so a
kill of either loses one batch at most.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.bundle.labels import closed_set, label_probabilities
from slmops.engines.base import Engine, Sampling
from slmops.models.tokenizer import Tokenizer
from slmops.tasks import Task

BATCH = 32


@dataclass(frozen=True)
class Job:
    """What to answer.

    Attributes:
        engine: name in the engine registry.
        model: folder with the model and its tokenizer.
        task: a task's description; one with a closed set is answered by the most likely label.
        texts: JSON file with a list of texts.
        threads: of the engine; 0 takes all cores.
    """

    engine: str
    model: str
    task: dict[str, Any]
    texts: str
    threads: int


def answer(job: Job) -> Iterator[dict[str, Any]]:
    """Per text its `index`, `text` and perhaps `probabilities`; last the `seconds` that all took, without loading."""
    from slmops.engines import load_engine
    from slmops.tasks import from_description

    task = from_description(job.task)
    texts = json.loads(Path(job.texts).read_text(encoding="utf-8"))
    engine, tokenizer = load_engine(job.engine, Path(job.model), threads=job.threads), Tokenizer.load(Path(job.model))
    # Texts of like length together, so that little is padded.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    begun = time.perf_counter()
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        answers = answer_batch(engine, tokenizer, task, [texts[index] for index in chosen])
        yield from ({"index": index, **one} for index, one in zip(chosen, answers, strict=True))
    yield {"seconds": time.perf_counter() - begun}


def answer_batch(engine: Engine, tokenizer: Tokenizer, task: Task, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The most likely label with the probabilities of all, or the most likely text."""
    if closed_set(task):
        found = label_probabilities(engine, tokenizer, task, texts)
        return [{"text": task.write(max(one, key=one.__getitem__)), "probabilities": one} for one in found]
    prompts = [tokenizer.prompt(task.render(text)) for text in texts]
    written: list[list[int]] = [[] for _ in texts]
    for token in engine.generate(prompts, Sampling(max_tokens=task.max_answer_tokens)):
        written[token.request].append(token.id)
    return [{"text": tokenizer.decode(ids)} for ids in written]


if __name__ == "__main__":
    for line in answer(Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))):
        print(json.dumps(line), flush=True)
