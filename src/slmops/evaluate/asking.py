"""Asking one subject: what is known is not asked again, and what is new is kept at once."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from slmops import child
from slmops.bundle.labels import closed_set
from slmops.data.read import write_jsonl
from slmops.endpoints.answers import Answers, key
from slmops.errors import BadInput, SlmopsError
from slmops.evaluate import probe
from slmops.evaluate.answering import Job
from slmops.evaluate.endpoint import Manner, ask
from slmops.evaluate.subjects import Endpoint, Local, Subject
from slmops.pipeline.environment import cpu_model
from slmops.pipeline.files import content_digest
from slmops.privacy.audit import Gate, gate_for
from slmops.privacy.presidio import check_detector
from slmops.privacy.redaction import Redaction, redactor_for, unchanged
from slmops.progress import Progress
from slmops.recipe.privacy import PrivacySettings
from slmops.tasks import Message, Row, Task

Records = dict[int, dict[str, Any]]
"""Answers by row number."""


@dataclass(frozen=True)
class Asking:
    """How subjects are asked.

    Attributes:
        threads: of local engines; 0 takes all cores.
        latency_requests: rows that are timed one by one; 0 measures no latency.
        concurrency, retries, timeout_s: of endpoints, see `Manner`.
        privacy: what is taken out of texts for endpoints on other machines, whether any may leave.
    """

    threads: int
    latency_requests: int
    concurrency: int
    retries: int
    timeout_s: float
    privacy: PrivacySettings = field(default_factory=PrivacySettings)


def answers_of(
    subject: Subject,
    task: Task,
    rows: Sequence[Row],
    asking: Asking,
    kept: Answers,
    progress: Progress,
    *,
    gate: Gate | None = None,
) -> tuple[Records, SlmopsError | None]:
    """The subject's answers by row number, and what went wrong at an endpoint before it had answered all.

    Args:
        gate: see `gate_of`.

    Raises:
        BadInput: the subject refuses to be asked.
        SlmopsError: a local model fails.
    """
    who = _identity(subject)
    redactions = _redactions(subject, task, rows, asking)
    asked = [of_row.messages(task.render(row["input"])) for row, of_row in zip(rows, redactions, strict=True)]
    keys = [key(who=who, messages=messages, **_manner(subject, task)) for messages in asked]
    found = kept.find(keys)
    # Equal rows are one question.
    missing = {one: number for number, one in enumerate(keys) if one not in found}
    problem = None
    if missing and isinstance(subject, Local):
        rows_by_key = {one: rows[number] for one, number in missing.items()}
        _answer_local(subject, task, rows_by_key, asking, kept, progress)
    elif missing and isinstance(subject, Endpoint):
        timed = sum(bool(record.get("alone")) for record in found.values())
        requests = {one: asked[number] for one, number in missing.items()}
        alone = max(0, asking.latency_requests - timed)
        problem = _answer_endpoint(subject, task, requests, alone, asking, kept, gate, progress)
    found = kept.find(keys)
    told = {number: found[one] for number, one in enumerate(keys) if one in found}
    return {n: {**record, "text": redactions[n].restore(record["text"]).text} for n, record in told.items()}, problem


def gate_of(subject: Subject, asking: Asking, folder: Path) -> Gate | None:
    """Where requests to a subject are written down; None for one on this machine.

    Args:
        folder: of the log.

    Raises:
        BadInput: nothing may leave, and it is on another machine; or the detector is not installed.
    """
    if isinstance(subject, Local):
        return None
    check_detector(subject.base_url, asking.privacy)
    return gate_for(subject.base_url, subject.model, f"evaluation of {subject.name}", asking.privacy, folder)


def _redactions(subject: Subject, task: Task, rows: Sequence[Row], asking: Asking) -> list[Redaction]:
    """The texts of each row's messages as they leave for a subject; they stay as they are for one that is here."""
    finder = None if isinstance(subject, Local) else redactor_for(subject.base_url, asking.privacy)
    texts = ([message["content"] for message in task.render(row["input"])] for row in rows)
    return [finder.redact(of_row) if finder else unchanged(of_row) for of_row in texts]


def _identity(subject: Subject) -> dict[str, Any]:
    """What shapes an answer besides the question."""
    if isinstance(subject, Endpoint):
        return {"base_url": subject.base_url, "model": subject.model}
    libraries = {"transformers": ("torch", "transformers"), "onnxruntime-genai": ("onnxruntime-genai",)}
    versions = {name: metadata.version(name) for name in ("tokenizers", *libraries[subject.engine])}
    return {"digest": subject.digest, "engine": subject.engine, "versions": versions}


def _manner(subject: Subject, task: Task) -> dict[str, Any]:
    """Greedy text, or the most likely of some labels."""
    labels = closed_set(task) if isinstance(subject, Local) else None
    return {"labels": labels} if labels else {"max_tokens": task.max_answer_tokens, "temperature": 0}


def _answer_local(
    subject: Local, task: Task, missing: Mapping[str, Row], asking: Asking, kept: Answers, progress: Progress
) -> None:
    keys, batch = list(missing), dict[str, dict[str, Any]]()
    with tempfile.TemporaryDirectory(prefix="slmops-answers-") as work:
        texts = Path(work, "texts.json")
        texts.write_text(json.dumps([row["input"] for row in missing.values()]), encoding="utf-8")
        job = Job(subject.engine, str(subject.folder), task.describe(), str(texts), asking.threads)
        with (
            progress.task(f"{subject.name} answers", len(keys), "rows") as bar,
            _lines("slmops.evaluate.answering", asdict(job), Path(work), subject.name) as lines,
        ):
            for line in lines:
                if "seconds" in line:
                    speed = {"rows": len(keys), "seconds": line["seconds"]}
                    kept.keep({_speed_key(subject, task, asking): speed})
                    continue
                batch[keys[line.pop("index")]] = line
                kept.keep(batch)
                batch.clear()
                bar.advance(1)


@contextmanager
def _lines(module: str, job: Mapping[str, Any], work: Path, name: str) -> Iterator[Iterator[dict[str, Any]]]:
    """What a process that runs `module` on a job says, line by line."""
    place, errors = work / "job.json", work / "stderr.txt"
    place.write_text(json.dumps(job), encoding="utf-8")
    with errors.open("w", encoding="utf-8") as stderr:
        command = child.command(module, str(place))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:  # noqa: S603
            try:
                yield (json.loads(line) for line in process.stdout or () if line.startswith("{"))
            except BaseException:
                process.kill()
                raise
    if process.returncode:
        raise _failure(name, errors.read_text(encoding="utf-8"))


def _failure(name: str, stderr: str) -> SlmopsError:
    last = (stderr.strip().splitlines() or ["no message"])[-1]
    kind, _, message = last.partition(": ")
    if kind.endswith("BadInput"):
        return BadInput(f"{name}: {message}")
    return SlmopsError(f"{name} cannot answer: {last}")


def _answer_endpoint(
    subject: Endpoint,
    task: Task,
    requests: Mapping[str, Sequence[Message]],
    alone: int,
    asking: Asking,
    kept: Answers,
    gate: Gate | None,
    progress: Progress,
) -> SlmopsError | None:
    manner = Manner(asking.concurrency, alone, asking.retries, asking.timeout_s)
    with progress.task(f"{subject.name} answers", len(requests), "rows") as bar:

        def keep(one: str, record: dict[str, Any]) -> None:
            kept.keep({one: record})
            bar.advance(1)

        try:
            ask(subject, requests, task.max_answer_tokens, manner, keep, gate)
        except BadInput:
            raise
        except SlmopsError as error:
            return error
    return None


def figures_of(
    subject: Subject,
    task: Task,
    rows: Sequence[Row],
    records: Sequence[Mapping[str, Any]],
    asking: Asking,
    kept: Answers,
    progress: Progress,
) -> dict[str, Any]:
    """What running the subject costs: of a local model as the probe measures it, of an endpoint as it was felt here."""
    if isinstance(subject, Endpoint):
        return _endpoint_figures(records)
    figures: dict[str, Any] = {"engine": subject.engine}
    timed = rows[: asking.latency_requests]
    if timed:
        one = key(
            who=_identity(subject),
            figures=[task.render(row["input"]) for row in timed],
            max_tokens=task.max_answer_tokens,
            threads=asking.threads,
            processor=cpu_model(),
            probe=content_digest(Path(probe.__file__)),
        )
        if not (found := kept.find([one])):
            found = {one: _measure(subject, task, timed, asking, progress)}
            kept.keep(found)
        figures |= found[one]
    for speed in kept.find([_speed_key(subject, task, asking)]).values():
        figures["batched_rows_per_s"] = speed["rows"] / speed["seconds"]
    return figures


def _speed_key(subject: Local, task: Task, asking: Asking) -> str:
    return key(who=_identity(subject), speed=task.describe(), threads=asking.threads, processor=cpu_model())


def _measure(subject: Local, task: Task, rows: Sequence[Row], asking: Asking, progress: Progress) -> dict[str, Any]:
    """The probe's figures, from a process that loads this model alone."""
    with tempfile.TemporaryDirectory(prefix="slmops-measure-") as place:
        work = Path(place)
        write_jsonl(work / "test.jsonl", rows)
        job = probe.Job(
            engine=subject.engine,
            model=str(subject.folder),
            task=task.describe(),
            rows=str(work / "test.jsonl"),
            latency_requests=len(rows),
            threads=asking.threads,
            answers=False,
            out=place,
        )
        with (
            progress.task(f"measure {subject.name}", len(rows), "requests") as bar,
            _lines("slmops.evaluate.probe", asdict(job), work, subject.name) as lines,
        ):
            for line in lines:
                bar.advance(line.get("done", 0))
        figures: dict[str, Any] = json.loads((work / "probe.json").read_text(encoding="utf-8"))
    return figures


def _endpoint_figures(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {"engine": "endpoint"}
    alone = [record for record in records if record["alone"]]
    if alone:
        times = np.array([record["latency_ms"] for record in alone])
        figures |= {f"latency_p{q}_ms": float(np.percentile(times, q)) for q in (50, 90, 95, 99)}
    if alone and all(record["tokens"] is not None for record in alone):
        tokens = sum(record["tokens"] for record in alone)
        figures |= {"tokens_per_answer": tokens / len(alone), "tokens_per_s": tokens / float(times.sum()) * 1e3}
    if alone and all(record.get("prompt_tokens") is not None for record in alone):
        figures["tokens_per_prompt"] = sum(record["prompt_tokens"] for record in alone) / len(alone)
    return figures
