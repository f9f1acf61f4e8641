"""What two trainings that did the same tell alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TAKEN = frozenset({"seconds", "cpu_seconds", "rss_bytes", "on_policy_seconds"})
"""What a training took, which is another time and memory when it is done again."""


def learned(history: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """A history without what it took."""
    return [{name: value for name, value in entry.items() if name not in TAKEN} for entry in history]
