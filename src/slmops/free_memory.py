"""How much memory this process may still take, before the system ends it for more."""

from __future__ import annotations

from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def free_bytes() -> int:
    """Bytes: of the machine, and of the control groups that it is in."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def _left_in_groups() -> list[int]:
    """Bytes that each control group (version 2) above this process leaves it; none where none has a limit."""
    try:
        unified = [line.partition("::")[2] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::")]
    except OSError:
        return []
    own = _GROUPS / (unified[0].lstrip("/") if unified else "")
    left = []
    for group in (own, *own.parents):
        if group.is_relative_to(_GROUPS) and (found := _left_in(group)) is not None:
            left.append(found)
    return left


def _left_in(group: Path) -> int | None:
    try:
        most, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Files that were read count as used, and are given up when memory is wanted.
    return None if most == "max" else int(most) - used + int(kept.get("inactive_file", 0))
