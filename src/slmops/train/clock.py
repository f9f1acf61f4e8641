"""What a training takes while it goes: time, processor time and memory."""

from __future__ import annotations

import time

import psutil
import torch


class Clock:
    """Times the steps of a training, and no evaluation or checkpoint between them.

    Attributes:
        seconds: of all steps so far.
        cpu_seconds: processor time of all threads of this process in them, in user and in kernel mode.
    """

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self.seconds, self.cpu_seconds = seconds, cpu_seconds
        self.begin()

    def begin(self) -> None:
        """A step begins."""
        self._since, self._cpu_since = time.monotonic(), time.process_time()

    def end(self) -> None:
        """It ends."""
        self.seconds += time.monotonic() - self._since
        self.cpu_seconds += time.process_time() - self._cpu_since

    def taken(self) -> dict[str, float]:
        """`seconds`, `cpu_seconds`, and what is held now: `rss_bytes` and, where there is a GPU, `gpu_bytes`."""
        held = {"rss_bytes": float(psutil.Process().memory_info().rss)}
        if torch.cuda.is_available():
            held["gpu_bytes"] = float(torch.cuda.memory_allocated())
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, **held}
