"""What a run ran on, as far as it can shape speed or results."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any


def environment(libraries: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Machine and versions, as plain JSON; `memory_bytes` is the machine's, `cores` those this process may use.

    Args:
        elsewhere: versions of what another environment has.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "versions": {name: metadata.version(name) for name in sorted({"slmops", *libraries})} | dict(elsewhere or {}),
    }


def cpu_model() -> str:
    """The processor's own name for itself where Linux tells it, else its architecture."""
    return next(_told("model name"), platform.machine())


def multiplies_bytes() -> bool:
    """Whether the processor has instructions for products of 8-bit integers (VNNI), where Linux tells it."""
    flags = next(_told("flags"), "").split()
    return any(flag.endswith("_vnni") for flag in flags)


def _told(key: str) -> Iterator[str]:
    """What /proc/cpuinfo says of `key`, once per core."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key)
