"""The log of a server: a line of JSON for each request and for each change, without what was asked or answered."""

from __future__ import annotations

import json
import queue
import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

from slmops.serve.accounts import Account, Sink

_MOST_WAITING = 10_000
_QUIET = frozenset({"/health", "/ready", "/metrics"})
"""Asked by machines every few seconds: only what goes wrong there is told."""


class Journal:
    """Writes lines in a thread of its own, so that who reads them slowly keeps no request waiting."""

    def __init__(self, out: TextIO | None = None, *, most_waiting: int = _MOST_WAITING) -> None:
        """`out` is standard output, unless another is given; `most_waiting` lines wait for it."""
        self._out = out or sys.stdout
        self._lines: queue.Queue[str | None] = queue.Queue(most_waiting)
        self._lost = 0
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def write(self, event: str, **told: Any) -> None:
        """Add a line; what is None is left out. Where nobody takes the lines, they are counted instead."""
        line: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        line |= {name: value for name, value in told.items() if value is not None}
        if self._lost:
            line["lines_lost"] = self._lost
        try:
            # In ASCII nothing that a client wrote can end a line or steer a terminal.
            self._lines.put_nowait(json.dumps(line))
            self._lost = 0
        except queue.Full:
            self._lost += 1

    def until_written(self) -> None:
        """Return when all lines that were added are written."""
        self._lines.join()

    def close(self) -> None:
        """Return when all is written, or nobody takes it."""
        try:
            self._lines.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(5)

    def _work(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                self._out.write(line + "\n")
                self._out.flush()
                self._lines.task_done()
        except (OSError, ValueError) as error:
            print(f"nobody takes the log any more: {error}", file=sys.stderr)


def requests(journal: Journal, model: str) -> Sink:
    """What writes the line of a request to `model`."""

    def write(account: Account) -> None:
        if account.route in _QUIET and account.status == 200:
            return
        read, known, written = account.tokens if account.ran else (None, None, None)
        journal.write(
            "request",
            id=account.id,
            client=account.client,
            method=account.method,
            route=account.route,
            status=account.status,
            model=model if account.ran else None,
            adapter=account.adapter,
            read=read,
            known=known,
            written=written,
            first_token_s=_rounded(account.first_token_s),
            per_token_s=_rounded(account.per_token_s),
            took_s=_rounded(account.took_s),
            error=account.error,
            asked=account.asked,
            said=account.said or None,
        )

    return write


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
