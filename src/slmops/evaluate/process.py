"""What the kernel says about this process: memory and processor time."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from slmops.errors import SlmopsError


def peak_rss_bytes() -> int:
    """High-water mark of this process's resident memory.

    Read from /proc, because `getrusage` also counts the memory of the parent that started the process.

    Raises:
        SlmopsError: the kernel does not tell.
    """
    return _status("VmHWM")


def rss_bytes() -> int:
    """Resident memory of this process now.

    Raises:
        SlmopsError: the kernel does not tell.
    """
    return _status("VmRSS")


def cpu_seconds() -> float:
    """Processor time that all threads of this process have used, in user and in kernel mode."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _status(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    match = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    if match is None:
        raise SlmopsError(f"the kernel reports no {name} in /proc/self/status", hint="measure on Linux")
    return int(match[1]) * 1024
