"""What left this machine: one line for every request, written before it leaves. Never what it said."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmops.errors import BadInput, SlmopsError
from slmops.privacy.placeholders import counted
from slmops.recipe.privacy import PrivacySettings, is_loopback

EGRESS = "egress.jsonl"
"""The file of the log in the folder of a home that nothing deletes."""


@dataclass(frozen=True)
class Gate:
    """Where the requests to one endpoint pass, and are written down.

    Attributes:
        log: the file, which lines are only ever added to.
        who: what the endpoint is asked for: `teacher big`, `judge`.
        host: with its port.
    """

    log: Path
    who: str
    host: str
    model: str

    def leaving(self, body: bytes, messages: Sequence[Mapping[str, str]]) -> None:
        """Write down a request that leaves once this has returned; the line is there after a kill of this process.

        Args:
            body: of the request, byte for byte; its digest is written down.
            messages: of the request; the placeholders in them are counted by kind, one that stands there twice once.

        Raises:
            SlmopsError: the line cannot be written, so the request must not leave.
        """
        names = set[tuple[str, int]]().union(*(counted(message["content"]) for message in messages))
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": self.who,
            "host": self.host,
            "model": self.model,
            "digest": hashlib.sha256(body).hexdigest(),
            "bytes": len(body),
            "redacted": dict(sorted(Counter(kind for kind, _ in names).items())),
        }
        _append(self.log, json.dumps(line).encode() + b"\n")


def gate_for(base_url: str, model: str, who: str, settings: PrivacySettings, folder: Path) -> Gate | None:
    """The gate before an endpoint; None where that counts as this machine.

    Args:
        folder: where the log is, and is made when missing.

    Raises:
        BadInput: no text may leave this machine, and this one would.
    """
    from urllib.parse import urlsplit

    if settings.is_local(base_url):
        return None
    host = urlsplit(base_url).netloc
    if settings.egress == "local-only":
        raise BadInput(
            f"{who} is at {host}, and privacy.egress: local-only lets no text leave this machine",
            hint="take an endpoint on this machine, or allow it: privacy.egress: anywhere",
        )
    folder.mkdir(parents=True, exist_ok=True)
    return Gate(folder / EGRESS, who, host, model)


def check_gate(gate: Gate | None, base_url: str) -> None:
    """Refuse to ask an endpoint on another machine without one: a request that nobody decided on does not leave.

    Raises:
        TypeError: there is none.
    """
    if gate is None and not is_loopback(base_url):
        raise TypeError(f"{base_url} is not on this machine and is asked without a gate; see `gate_for`")


def read_log(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines, oldest first, and how many more cannot be read: a full disk or a power cut left them half written.

    Raises:
        BadInput: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    found, damaged = [], 0
    for line in filter(None, content.split(b"\n")):
        try:
            found.append(json.loads(line))
        except ValueError:
            damaged += 1
    return found, damaged


def _append(path: Path, line: bytes) -> None:
    """One write to the end of the file, so that lines of several processes do not mix.

    Behind half a line, which a full disk may have left, it begins with a line's end.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            whole = b"\n" * torn + line
            if os.write(descriptor, whole) != len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SlmopsError(
            f"{path}: {error.strerror}, so nothing was sent",
            hint="make room, or see who may write there; what leaves is written down first",
        ) from None
