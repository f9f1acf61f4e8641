"""Energy as the processor itself counts it (RAPL), where the kernel lets this process read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
METHOD = "measured: RAPL package domain"
"""Of Intel and AMD processors: the whole package, whoever keeps it busy, without the memory modules."""


@dataclass(frozen=True)
class Counter:
    """One processor package.

    Attributes:
        path: `energy_uj`, in microjoules since some moment.
        wraps_at: the counter begins at 0 again behind this, in microjoules.
    """

    path: Path
    wraps_at: int

    def read(self) -> int:
        """Microjoules."""
        return int(self.path.read_text(encoding="ascii"))


class Meter:
    """Counts the energy of a piece of work. It must take less than a counter needs to wrap (minutes at full load)."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        """Begin to count.

        Args:
            powercap: the kernel's folder of power domains (Documentation/power/powercap/powercap.rst).
        """
        self._begun = [(counter, counter.read()) for counter in _packages(powercap)]

    def joules(self) -> float | None:
        """Since the beginning, over all packages; None where the machine does not tell."""
        if not self._begun:
            return None
        used = sum((counter.read() - begun) % (counter.wraps_at + 1) for counter, begun in self._begun)
        return used / 1e6


def _packages(powercap: Path) -> list[Counter]:
    """The counters that this process may read; mostly only root may."""
    found = []
    # A domain below a package (intel-rapl:0:0) is a part of it and would count twice.
    for zone in sorted(powercap.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") > 1:
            continue
        try:
            if not (zone / "name").read_text(encoding="ascii").startswith("package"):
                continue
            counter = Counter(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text(encoding="ascii")))
            counter.read()
        except (OSError, ValueError):
            continue
        found.append(counter)
    return found
