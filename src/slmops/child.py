"""Programs that end with the process that started them, however that one ends.

A run that is killed must not leave a child behind: it would go on writing where the next run writes.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when the thread that started it ends."""


def command(module: str, *arguments: str, python: str | None = None) -> list[str]:
    """Runs `module` as `python -m` does, as a child of this process that does not outlive it.

    Args:
        python: of another environment, which need not have this package; it sees what is installed there and neither
            the current folder nor PYTHONPATH, and what it says comes line by line.
    """
    start = [sys.executable, "-m", "slmops.child"] if python is None else [python, "-I", "-u", __file__]
    return [*start, str(os.getpid()), module, *arguments]


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        sys.exit(1)


if __name__ == "__main__":
    _, process_id, *sys.argv = sys.argv
    _end_with(int(process_id))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
