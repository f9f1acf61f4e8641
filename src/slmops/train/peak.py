"""How much memory a training took at its peak, measured by the system and not added up."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from mmap import PAGESIZE
from pathlib import Path

import psutil
import torch

_PEAK_RSS = "VmHWM:"


class Peak:
    """The most memory that a training took: what was there when it began, and what came to it.

    On the GPU where there is one. Libraries do not count, which are loaded by then.
    """

    def __init__(self, held: int) -> None:
        """Begin to look.

        Args:
            held: bytes of weights, and of what was computed before, that are there already.
        """
        self._held = held
        self._gpu = torch.cuda.is_available()
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            # Writing 5 sets the peak back to what the process has now (Linux, proc(5)).
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._before = psutil.Process().memory_info().rss

    def taken(self) -> int:
        """Bytes at the peak so far."""
        if self._gpu:
            return self._held + int(torch.cuda.max_memory_allocated()) - self._before
        return self._held + max(0, _peak_rss() - self._before)


def make_resident(tensors: Iterable[torch.Tensor]) -> None:
    """Read a value of every page: a weight that is mapped from its file takes memory when it is first read.

    Else what counts as there when training begins would come to it in the first step once more.
    """
    for tensor in tensors:
        if tensor.device.type == "cpu" and tensor.is_contiguous():
            tensor.detach().view(-1)[:: PAGESIZE // tensor.itemsize].sum()


def _peak_rss() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kib = next(line for line in lines if line.startswith(_PEAK_RSS)).split()[1]
    return int(kib) * 1024
