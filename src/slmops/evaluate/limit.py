"""A bound on the memory of a process that is measured, as the device that it stands for would set it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from slmops.errors import SlmopsError

_EVERY_S = 0.005


class DoesNotFit(SlmopsError):
    """A model takes more memory than it may."""


@contextmanager
def keep_below(memory_mb: int | None, process: subprocess.Popen[str]) -> Iterator[None]:
    """Inside, `process` is killed once its resident memory passes `memory_mb` (of 10**6 bytes); None sets no bound.

    What is resident counts and not what is reserved, which a runtime does without need. A peak between two looks, some
    milliseconds apart, is not seen.

    Raises:
        DoesNotFit: on leaving, when it was killed for that.
    """
    if memory_mb is None:
        yield
        return
    ended, killed = threading.Event(), threading.Event()
    watching = threading.Thread(target=_watch, args=(process, memory_mb * 10**6, ended, killed), daemon=True)
    watching.start()
    try:
        yield
        process.wait()
    finally:
        ended.set()
        watching.join()
    if killed.is_set():
        raise DoesNotFit(f"it takes more than {memory_mb} MB of memory")


def _watch(process: subprocess.Popen[str], most: int, ended: threading.Event, killed: threading.Event) -> None:
    import psutil

    try:
        seen = psutil.Process(process.pid)
        while not ended.wait(_EVERY_S):
            if seen.memory_info().rss > most:
                killed.set()
                process.kill()
                return
    except psutil.NoSuchProcess:
        return
