"""Where a project keeps its store and its history unless told otherwise."""

from __future__ import annotations

from pathlib import Path

HOME = Path(".slmops")
