"""Locks between processes, released by the kernel however their holder ends.

They are `flock` on files: shared or exclusive, tied to the open file and so never left behind by a kill, and
visible to every process that sees the same folder, in whichever container it runs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class Held(Exception):
    """Somebody else holds the lock."""


@contextmanager
def hold(path: Path, *, shared: bool = False, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock at `path` for the length of the block.

    Args:
        path: the lock's file, made when missing; its folder exists. Whoever deletes it must be sure that nobody
            is about to open it.
        shared: any number of holders at once, but none beside an exclusive one.
        on_wait: called once before waiting for another holder; without it there is no waiting.

    Raises:
        Held: another process holds it and `on_wait` is None.
    """
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    # Sharing a lock works in a read-only folder too, if it was used before; some network file systems want
    # write access for an exclusive one.
    descriptor = os.open(path, os.O_CREAT | (os.O_RDONLY if shared else os.O_RDWR), 0o666)
    try:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                raise Held(str(path)) from None
            on_wait()
            fcntl.flock(descriptor, mode)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at `path` exclusively; any number may ask at once."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
