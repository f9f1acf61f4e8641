"""The other end of `serve`: a bundle in a process of its own, which may die without taking the checklist with it."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from slmops import child
from slmops.errors import SlmopsError

MODULE = "slmops.evaluate.checklist.serve"
PATIENCE_S = 900.0
"""A question without an answer for so long counts as a crash."""


@dataclass(frozen=True)
class Answer:
    """What the model wrote.

    Attributes:
        text, tokens: of the answer.
        prompt_tokens: read; 0 where the question does not tell.
        first_s, total_s: until the first and the last token, from the question on.
        confidence: geometric mean of the probabilities of the tokens written; 0..1.
    """

    text: str
    tokens: int
    prompt_tokens: int = 0
    first_s: float = 0.0
    total_s: float = 0.0
    confidence: float = 0.0


@dataclass(frozen=True)
class Refused:
    """A clean error: the request cannot be answered, and says why."""

    why: str


@dataclass(frozen=True)
class Crashed:
    """What must never happen: another exception, a dead process, or none of both for a quarter of an hour."""

    how: str


Outcome = Answer | Refused | Crashed


class Served:
    """A bundle, asked through its process. The process starts with the first question, and again behind a crash."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._folder, self._threads = folder, threads
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - lives as long as this object
        self.rss_bytes = 0
        """Resident memory of the process behind its last answer."""

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._errors.close()

    def predict(self, text: str) -> Outcome:
        """`Bundle.predict`: the way every request takes."""
        outcome = self._outcomes({"predict": text})
        return outcome[0] if isinstance(outcome, list) else outcome

    def greedy(self, texts: Sequence[str]) -> list[Answer] | Refused | Crashed:
        """The most likely answers to `texts`, decoded together; refused as a whole where one text is."""
        return self._outcomes({"greedy": list(texts)})

    def info(self) -> dict[str, Any]:
        """`EngineInfo` as plain data.

        Raises:
            SlmopsError: the bundle cannot even be loaded.
        """
        reply = self._ask({"info": True})
        if "info" not in reply:
            raise SlmopsError(f"the bundle {self._folder} cannot be served: {reply.get('refused') or reply['error']}")
        found: dict[str, Any] = reply["info"]
        return found

    def _outcomes(self, question: dict[str, Any]) -> list[Answer] | Refused | Crashed:
        reply = self._ask(question)
        if "refused" in reply:
            return Refused(reply["refused"])
        if "error" in reply:
            return Crashed(reply["error"])
        return [Answer(**answer) for answer in reply["answers"]]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the process was started with pipes")
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return {"error": self._last_words()}
        # One question, one answer: nothing can wait in the buffer of the pipe.
        if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
            self._end()
            return {"error": f"no answer within {PATIENCE_S:.0f} s"}
        line = process.stdout.readline()
        if not line:
            return {"error": self._last_words()}
        reply: dict[str, Any] = json.loads(line)
        self.rss_bytes = reply["rss_bytes"]
        return reply

    def _start(self) -> subprocess.Popen[str]:
        command = child.command(MODULE, str(self._folder), str(self._threads))
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)  # noqa: S603

    def _last_words(self) -> str:
        """How a process ended that gave no answer."""
        process = self._end()
        code = process.returncode if process else 0
        if code < 0:
            return f"the process died of {signal.Signals(-code).name}"
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
        return f"the process ended with exit code {code}: {last}"

    def _end(self) -> subprocess.Popen[str] | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if process.stdin is not None:
            # A dead process leaves a broken pipe, and to close it says so once more.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return process
