"""One model's part in a check of parity, from a process that loads this model alone.

Run as `python -m slmops.evaluate.parity_process JOB.json`; see `Job`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slmops.bundle import open_bundle
from slmops.data.read import read_jsonl
from slmops.engines import load_engine
from slmops.evaluate.parity_sides import Side, shipped_side, source_side
from slmops.evaluate.probe import Subject
from slmops.models.spelling import spelling
from slmops.models.tokenizer import Tokenizer
from slmops.tasks import from_description


@dataclass(frozen=True)
class Job:
    """Whose part.

    Attributes:
        model: a Hugging Face folder; of what ships, a bundle.
        task: a task's description; a bundle has its own.
        rows: JSONL file.
        written: tokens of the source's answers to them.
        source: file with the source's part, for what ships; None for the source.
        tokens: the source's folder with its tokenizer, for what ships.
        threads: of the engine; 0 takes all cores.
        out: the file to write.
    """

    model: str
    task: dict[str, Any]
    rows: str
    written: list[list[int]]
    source: str | None
    tokens: str | None
    threads: int
    out: str


def side_of(job: Job) -> Side:
    """The part that the job asks for. The source is run on a GPU where there is one, a bundle where it is to run."""
    rows, folder = read_jsonl(Path(job.rows)), Path(job.model)
    if job.source is None:
        engine = load_engine("transformers", folder, threads=job.threads, gpu=True)
        subject = Subject(engine, Tokenizer.load(folder), from_description(job.task))
        return source_side(subject, rows, job.written)
    bundle = open_bundle(folder, threads=job.threads)
    spelled = spelling(Tokenizer.load(Path(job.tokens)), bundle.tokenizer) if job.tokens else None
    return shipped_side(bundle, rows, read_side(Path(job.source)), spelled)


def read_side(path: Path) -> Side:
    """The part that a process wrote to `path`."""
    return Side.read(json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    asked = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(asked.out).write_text(json.dumps(asdict(side_of(asked))), encoding="utf-8")
